"""The index of the largest element along `axis`, the first of equals; the axis is gone."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    axis, shape = attrs["axis"], types[0].shape
    expect(0 <= axis < types[0].rank, f"axis {axis} of {types[0]}")
    expect(shape[axis] > 0, "the axis is empty")
    return i64(*shape[:axis], *shape[axis + 1 :])


OP = OpDef(
    "argmax",
    OpKind.REDUCTION,
    _infer,
    lambda arrays, attrs: np.argmax(arrays[0], attrs["axis"]).astype(np.int64),
    flops=lambda types, result, attrs: types[0].size,
    samples=(
        sample(f32(5), axis=0),
        sample(f32(3, 7), axis=1),
        sample(f32(4, 3, 2), axis=0),
        sample(i64(4, 9), axis=1, bound=3),
    ),
)
