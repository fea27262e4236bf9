"""The same elements, counted row by row, in another shape."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample, volume


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    shape = tuple(attrs["shape"])
    expect(volume(shape) == types[0].size, f"{types[0]} does not have the elements of {shape}")
    return types[0].with_shape(shape)


OP = OpDef(
    "reshape",
    OpKind.VIEW,
    _infer,
    lambda arrays, attrs: np.reshape(arrays[0], attrs["shape"]),
    samples=(
        sample(f32(0), shape=(0, 3)),
        sample(f32(), shape=(1, 1)),
        sample(f32(2, 6), shape=(3, 4)),
    ),
    cheap=True,
)
