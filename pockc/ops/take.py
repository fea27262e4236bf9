"""Rows of the first operand along `axis`, chosen by an integer tensor of any shape."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    axis, shape = attrs["axis"], types[0].shape
    expect(
        types[1].dtype.is_integer, f"the index must be integers, found {types[1].dtype.value}"
    )
    expect(0 <= axis < types[0].rank, f"axis {axis} of {types[0]}")
    return types[0].with_shape(shape[:axis] + types[1].shape + shape[axis + 1 :])


OP = OpDef(
    "take",
    OpKind.INDEX,
    _infer,
    lambda arrays, attrs: np.take(arrays[0], arrays[1], attrs["axis"]),
    samples=(
        sample(f32(5, 4), i64(), axis=0, bound=5),
        sample(f32(5, 4), i64(2, 3), axis=0, bound=5),
        sample(f32(3, 5, 2), i64(4), axis=1, bound=5),
    ),
)
