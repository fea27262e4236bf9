"""`low` elements of `value` before and `high` after, per dimension."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    low, high = attrs["low"], attrs["high"]
    expect(len(low) == len(high) == types[0].rank, "one amount per dimension")
    expect(all(n >= 0 for n in (*low, *high)), "amounts must not be negative")
    shape = tuple(a + n + b for a, n, b in zip(low, types[0].shape, high, strict=True))
    return types[0].with_shape(shape)


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    width = tuple(zip(attrs["low"], attrs["high"], strict=True))
    if not width:
        return arrays[0]
    return np.pad(arrays[0], width, constant_values=attrs["value"])


OP = OpDef(
    "pad",
    OpKind.MOVE,
    _infer,
    _reference,
    samples=(
        sample(f32(0), low=(1,), high=(2,), value=0.0),
        sample(f32(2, 3), low=(0, 1), high=(2, 0), value=-1.5),
    ),
    cheap=True,
)
