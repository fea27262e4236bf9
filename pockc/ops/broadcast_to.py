"""The operand repeated to a larger shape, by the rules of NumPy."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, arity, broadcast, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    shape = tuple(attrs["shape"])
    expect(broadcast((types[0], types[0].with_shape(shape))) == shape, f"{types[0]} to {shape}")
    return types[0].with_shape(shape)


OP = OpDef(
    "broadcast_to",
    OpKind.MOVE,
    _infer,
    lambda arrays, attrs: np.broadcast_to(arrays[0], attrs["shape"]).copy(),
    samples=(sample(f32(), shape=(2,)), sample(f32(2, 1, 3), shape=(4, 2, 5, 3))),
    cheap=True,
)
