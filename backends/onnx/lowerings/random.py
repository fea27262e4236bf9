"""Random numbers, computed by the same hash as everywhere; see `pockc.ops.random_uniform`."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node
from pockc.ir.types import DType

_U32, _U64 = TensorProto.UINT32, TensorProto.UINT64


@LOWER("random_uniform")
def _random_uniform(b: Builder, node: Node) -> str:
    (seed,) = b.operands(node)
    shape = node.attrs["shape"]
    whole = b.op("Cast", seed, to=_U64)
    low = b.op("Cast", b.op("BitwiseAnd", whole, _number(b, 2**32 - 1, _U64)), to=_U32)
    high = b.op("Cast", _shifted(b, whole, 32, _U64), to=_U32)
    key1 = _mixed(b, _xor(b, low, _mixed(b, _xor(b, high, _number(b, node.attrs["salt"])))))
    key2 = _mixed(b, b.op("Add", key1, _number(b, 0x9E3779B9)))
    numbers = (b.constant(np.array(n, np.int64)) for n in (0, math.prod(shape), 1))
    index = b.op("Cast", b.op("Range", *numbers), to=_U32)
    bits = _mixed(b, _xor(b, _mixed(b, b.op("Add", index, key1)), key2))
    upper = b.op("Cast", _shifted(b, bits, 8), to=TensorProto.FLOAT)
    return b.reshape(b.op("Mul", upper, b.scalar(2.0**-24, DType.F32)), shape)


def _mixed(b: Builder, x: str) -> str:
    """Return lowbias32 of unsigned 32-bit numbers; products wrap around."""
    x = _xor(b, x, _shifted(b, x, 16))
    x = b.op("Mul", x, _number(b, 0x7FEB352D))
    x = _xor(b, x, _shifted(b, x, 15))
    x = b.op("Mul", x, _number(b, 0x846CA68B))
    return _xor(b, x, _shifted(b, x, 16))


def _xor(b: Builder, x: str, y: str) -> str:
    return b.op("BitwiseXor", x, y)


def _shifted(b: Builder, x: str, bits: int, dtype: int = _U32) -> str:
    return b.op("BitShift", x, _number(b, bits, dtype), direction="RIGHT")


def _number(b: Builder, value: int, dtype: int = _U32) -> str:
    return b.op("Cast", b.constant(np.array(value, np.int64)), to=dtype)
