"""The index along one axis."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 0)
    shape = tuple(attrs["shape"])
    expect(0 <= attrs["axis"] < len(shape), f"axis {attrs['axis']} of shape {shape}")
    return TensorType(shape, attrs["dtype"])


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    shape, axis = tuple(attrs["shape"]), attrs["axis"]
    line = np.arange(shape[axis], dtype=attrs["dtype"].np)
    column = line.reshape(-1, *(1,) * (len(shape) - axis - 1))
    return np.array(np.broadcast_to(column, shape))


OP = OpDef(
    "iota",
    OpKind.GENERATOR,
    _infer,
    _reference,
    samples=(
        sample(shape=(5,), axis=0, dtype=DType.I64),
        sample(shape=(2, 3), axis=0, dtype=DType.F32),
        sample(shape=(2, 3, 4), axis=1, dtype=DType.I32),
    ),
    cheap=True,
)
