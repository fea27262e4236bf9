"""Tensors out of nothing: constants, ranges, triangles."""

from __future__ import annotations

from pockc.frontend.importer.base import Importer, Number, Operand, Value, lower
from pockc.ir import DType


@lower(
    "aten.zeros.default",
    "aten.zeros_like.default",
    "aten.new_zeros.default",
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
    "aten.zero.default",
)
def _zeros(b: Importer, *_: object, **__: object) -> Value:
    return b.full(0, b.out)


@lower("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default")
def _ones(b: Importer, *_: object, **__: object) -> Value:
    return b.full(1, b.out)


@lower("aten.full.default", "aten.full_like.default", "aten.new_full.default")
def _full(b: Importer, _: object, *rest: Number, **__: object) -> Value:
    return b.full(rest[-1], b.out)


@lower("aten.scalar_tensor.default")
def _scalar_tensor(b: Importer, value: Number, **_: object) -> Value:
    return b.scalar(value, b.out.dtype)


@lower("aten.fill.Scalar", "aten.fill.Tensor")
def _fill(b: Importer, x: Value, value: Operand) -> Value:  # noqa: ARG001
    return b.expand(b.to(value, b.out.dtype), b.out.shape)


@lower("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def _arange(b: Importer, *bounds: Number, **_: object) -> Value:
    start = bounds[0] if len(bounds) > 1 else 0
    step = bounds[2] if len(bounds) > 2 else 1
    line = b.iota(b.out.shape, 0, b.out.dtype)
    if step != 1:
        line = b.apply("mul", line, step)
    return b.apply("add", line, start) if start else line


@lower("aten.linspace.default")
def _linspace(b: Importer, start: Number, end: Number, steps: int, **_: object) -> Value:
    line = b.iota(b.out.shape, 0, b.out.dtype)
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    return b.apply("add", b.apply("mul", line, step), start)


@lower("aten.eye.default", "aten.eye.m")
def _eye(b: Importer, *_: int, **__: object) -> Value:
    same = b.emit("eq", b.iota(b.out.shape, 0), b.iota(b.out.shape, 1))
    return b.to(same, b.out.dtype)


@lower("aten.tril.default")
def _tril(b: Importer, x: Value, diagonal: int = 0) -> Value:
    return _triangle(b, x, "le", diagonal)


@lower("aten.triu.default")
def _triu(b: Importer, x: Value, diagonal: int = 0) -> Value:
    return _triangle(b, x, "ge", diagonal)


def _triangle(b: Importer, x: Value, op: str, diagonal: int) -> Value:
    """Keep x where column - row <= diagonal (or >=)."""
    rows, columns = b.shape(x)[-2:]
    edge = b.apply("add", b.iota((rows, columns), 0), diagonal)
    kept = b.emit(op, b.iota((rows, columns), 1), edge)
    if b.type_of(x).dtype is DType.B1:
        return b.emit("logical_and", kept, x)
    return b.where(kept, x, 0)
