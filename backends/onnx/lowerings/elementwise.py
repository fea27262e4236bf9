"""What is computed element by element; ONNX broadcasts as NumPy does."""

from __future__ import annotations

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node

_SAME = {
    "abs": "Abs",
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "erf": "Erf",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "sign": "Sign",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_not": "Not",
    "where": "Where",
}


@LOWER(*_SAME)
def _same(b: Builder, node: Node) -> str:
    return b.op(_SAME[node.op], *b.operands(node))


@LOWER("ne")
def _ne(b: Builder, node: Node) -> str:
    return b.op("Not", b.op("Equal", *b.operands(node)))


@LOWER("rsqrt")
def _rsqrt(b: Builder, node: Node) -> str:
    return b.op("Reciprocal", b.op("Sqrt", *b.operands(node)))


@LOWER("cast")
def _cast(b: Builder, node: Node) -> str:
    return b.cast(b.operands(node)[0], node.type.dtype)


@LOWER("mod")
def _mod(b: Builder, node: Node) -> str:
    x, y = b.operands(node)
    dtype = node.type.dtype
    if not dtype.is_float:
        return b.op("Mod", x, y)
    # That of floats has the sign of the dividend; ours has the sign of the divisor.
    rest, zero = b.op("Mod", x, y, fmod=1), b.scalar(0.0, dtype)
    other = b.op("Less", b.op("Mul", rest, y), zero)
    return b.op("Where", other, b.op("Add", rest, y), rest)
