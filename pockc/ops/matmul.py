"""The matrix product of the last two dimensions, broadcasting the others as NumPy does."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, arity, broadcast, expect, one_dtype, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    dtype = one_dtype(types)
    a, b = types
    expect(a.rank >= 2 and b.rank >= 2, f"takes matrices, found {a} and {b}")
    expect(a.shape[-1] == b.shape[-2], f"{a} times {b}: {a.shape[-1]} and {b.shape[-2]} differ")
    batch = broadcast((a.with_shape(a.shape[:-2]), b.with_shape(b.shape[:-2])))
    return TensorType((*batch, a.shape[-2], b.shape[-1]), dtype)


OP = OpDef(
    "matmul",
    OpKind.CONTRACTION,
    _infer,
    lambda arrays, attrs: np.matmul(arrays[0], arrays[1]),
    flops=lambda types, result, attrs: 2 * result.size * types[0].shape[-1],
    aten=("aten.mm.default", "aten.bmm.default"),
    samples=(
        sample(f32(1, 1), f32(1, 1)),
        sample(f32(3, 5), f32(5, 7)),
        sample(f32(33, 17), f32(17, 50)),
        sample(f32(2, 3, 4), f32(2, 4, 5)),
        sample(f32(2, 1, 3, 4), f32(3, 4, 6)),
    ),
)
