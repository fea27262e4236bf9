"""One number everywhere."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType
from pockc.ops.base import OpDef, OpKind, Types, arity, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 0)
    return TensorType(tuple(attrs["shape"]), attrs["dtype"])


OP = OpDef(
    "full",
    OpKind.GENERATOR,
    _infer,
    lambda arrays, attrs: np.full(attrs["shape"], attrs["value"], attrs["dtype"].np),
    samples=(
        sample(shape=(), value=2.5, dtype=DType.F32),
        sample(shape=(2, 3), value=float("-inf"), dtype=DType.F32),
        sample(shape=(4,), value=7, dtype=DType.I64),
        sample(shape=(4,), value=True, dtype=DType.B1),
    ),
    cheap=True,
)
