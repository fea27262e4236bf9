"""The second operand where the first is true, else the third."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType, b1, f32
from pockc.ops.base import (
    OpDef,
    OpKind,
    Types,
    arity,
    broadcast,
    expect,
    one_dtype,
    result_layout,
    sample,
)


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 3)
    expect(
        types[0].dtype is DType.B1, f"the condition must be b1, found {types[0].dtype.value}"
    )
    dtype = one_dtype(types[1:])
    shape = broadcast(types)
    return TensorType(shape, dtype, result_layout(types, shape))


OP = OpDef(
    "where",
    OpKind.ELEMENTWISE,
    _infer,
    lambda arrays, attrs: np.where(*arrays),
    flops=lambda types, result, attrs: result.size,
    samples=(
        sample(b1(2, 3), f32(2, 3), f32(2, 3)),
        sample(b1(2, 1), f32(), f32(3)),
        sample(b1(3), f32(2, 3), f32()),
    ),
    cheap=True,
)
