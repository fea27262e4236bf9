"""The adjoint of `take`: adds each row of dy to the row of zeros that its index names."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    axis, size, shape = attrs["axis"], attrs["size"], types[0].shape
    rank = types[1].rank
    expect(
        types[1].dtype.is_integer, f"the index must be integers, found {types[1].dtype.value}"
    )
    expect(shape[axis : axis + rank] == types[1].shape, f"index {types[1]} into {types[0]}")
    return types[0].with_shape((*shape[:axis], size, *shape[axis + rank :]))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    dy, index = arrays
    axis, size = attrs["axis"], attrs["size"]
    rows = dy.reshape(*dy.shape[:axis], -1, *dy.shape[axis + index.ndim :])
    moved = np.moveaxis(rows, axis, 0)
    result = np.zeros((size, *moved.shape[1:]), dy.dtype)
    np.add.at(result, index.reshape(-1), moved)
    return np.moveaxis(result, 0, axis)


OP = OpDef(
    "take_grad",
    OpKind.INDEX,
    _infer,
    _reference,
    flops=lambda types, result, attrs: types[0].size,
    samples=(
        sample(f32(4), i64(), axis=0, size=5, bound=5),
        sample(f32(2, 3, 4), i64(2, 3), axis=0, size=5, bound=5),
        sample(f32(3, 6, 2), i64(6), axis=1, size=4, bound=4),
    ),
)
