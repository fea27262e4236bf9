"""The first operand, with each row of the second added to the row that its index names."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, one_dtype, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 3)
    x, dy, index = types
    one_dtype((x, dy))
    expect(index.dtype.is_integer, f"the index must be integers, found {index.dtype.value}")
    expect(x.rank >= 1, "a scalar has no rows")
    rows = (*index.shape, *x.shape[1:])
    expect(dy.shape == rows, f"expected rows of shape {rows}, found {dy}")
    return x


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, dy, index = arrays
    # Rows of the same place are added up first: one by one they could each be too small to
    # change it.
    total = np.zeros_like(x)
    np.add.at(total, index.reshape(-1), dy.reshape(-1, *x.shape[1:]))
    result: np.ndarray = x + total
    return result


OP = OpDef(
    "index_add",
    OpKind.INDEX,
    _infer,
    _reference,
    flops=lambda types, result, attrs: 2 * types[1].size,
    samples=(
        sample(f32(5), f32(), i64(), bound=5),
        sample(f32(5, 4), f32(2, 3, 4), i64(2, 3), bound=5),
        sample(f32(3, 2, 19), f32(7, 2, 19), i64(7), bound=3),
    ),
)
