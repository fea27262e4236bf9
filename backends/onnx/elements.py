"""Element types as ONNX numbers them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto

from pockc.ir.types import DType

ELEMENTS: Mapping[DType, int] = {
    DType.F64: TensorProto.DOUBLE,
    DType.F32: TensorProto.FLOAT,
    DType.F16: TensorProto.FLOAT16,
    DType.BF16: TensorProto.BFLOAT16,
    DType.I64: TensorProto.INT64,
    DType.I32: TensorProto.INT32,
    DType.I16: TensorProto.INT16,
    DType.I8: TensorProto.INT8,
    DType.U8: TensorProto.UINT8,
    DType.B1: TensorProto.BOOL,
}
DTYPES: Mapping[int, DType] = {number: dtype for dtype, number in ELEMENTS.items()}
