"""The same numbers in another dtype. To integers it truncates; to b1 it asks for nonzero."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType, b1, f32, i64
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    expect(isinstance(attrs["dtype"], DType), "dtype must be an element type")
    return types[0].with_dtype(attrs["dtype"])


OP = OpDef(
    "cast",
    OpKind.ELEMENTWISE,
    _infer,
    lambda arrays, attrs: np.asarray(arrays[0]).astype(attrs["dtype"].np),
    samples=(
        sample(f32(5), dtype=DType.I64),
        sample(i64(2, 3), dtype=DType.F32, bound=9),
        sample(b1(4), dtype=DType.F32),
        sample(i64(4), dtype=DType.B1, bound=3),
    ),
    cheap=True,
)
