"""The adjoint of `take_along`: adds every element of dy where its index says."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    axis, size, shape = attrs["axis"], attrs["size"], types[0].shape
    expect(
        types[1].dtype.is_integer, f"the index must be integers, found {types[1].dtype.value}"
    )
    expect(types[1].shape == shape, f"{types[0]} and {types[1]} differ")
    expect(0 <= axis < types[0].rank, f"axis {axis} of {types[0]}")
    return types[0].with_shape((*shape[:axis], size, *shape[axis + 1 :]))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    dy, index = (np.moveaxis(a, attrs["axis"], 0) for a in arrays)
    result = np.zeros((attrs["size"], *dy.shape[1:]), dy.dtype)
    np.add.at(result, (index, *np.indices(dy.shape)[1:]), dy)
    return np.moveaxis(result, 0, attrs["axis"])


OP = OpDef(
    "take_along_grad",
    OpKind.INDEX,
    _infer,
    _reference,
    flops=lambda types, result, attrs: types[0].size,
    samples=(
        sample(f32(3), i64(3), axis=0, size=5, bound=5),
        sample(f32(4, 1), i64(4, 1), axis=1, size=6, bound=6),
        sample(f32(7, 3, 2), i64(7, 3, 2), axis=0, size=4, bound=4),
    ),
)
