"""Combining many elements: what with, and the sum of one row in several vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.kernels.elementwise import extreme
from pockc.backends.tvm.tir import TVM_DTYPE, Expr, Memory
from pockc.backends.tvm.values import NotVectorizableError, Scope, number
from pockc.ir.types import DType

Combine = Callable[[Expr, Expr], Expr]
UNROLL = 4
"""Independent accumulators of a row: as many as hide the latency of an addition."""


@dataclass(frozen=True, slots=True)
class Monoid:
    """How to combine two elements, and the element that changes nothing."""

    dtype: DType
    combine: Combine
    neutral: Expr


def monoid(op: str, dtype: DType) -> Monoid:
    """Return what `reduce_sum`, `reduce_max` or `reduce_min` combines with."""
    if op == "reduce_sum":
        return Monoid(dtype, lambda x, y: x + y, number(0, dtype))
    largest = op == "reduce_max"
    if dtype.is_float:
        neutral = number(-math.inf if largest else math.inf, dtype)
    else:
        neutral = (tirx.op.min_value if largest else tirx.op.max_value)(TVM_DTYPE[dtype])
    return Monoid(dtype, lambda x, y: extreme(x, y, dtype, largest=largest), neutral)


def blocks(n: int, lanes: int, unroll: int) -> list[tuple[int, int, list[int]]]:
    """Divide a dimension into blocks of up to `unroll` vectors.

    Returns:
        For each kind of block: where the first begins, how many there are, and the widths of
        its vectors.
    """
    size = lanes * unroll
    count, rest = divmod(n, size)
    found = [(0, count, [lanes] * unroll)] if count else []
    if rest:
        whole, part = divmod(rest, lanes)
        found.append((count * size, 1, [lanes] * whole + [part] * bool(part)))
    return found


@contextmanager
def loops(b: Builder, ranges: Sequence[tuple[Expr, Expr]]) -> Iterator[tuple[Expr, ...]]:
    """Open a loop for each (first, count); yields the indices."""
    with ExitStack() as stack:
        index = []
        for first, count in ranges:
            i = stack.enter_context(b.code.loop(count))
            index.append(i if isinstance(first, int) and first == 0 else first + i)
        yield tuple(index)


def row_total(
    b: Builder,
    scope: Scope,
    how: Monoid,
    outer: Sequence[tuple[Expr, Expr]],
    inner: tuple[Expr, Expr],
    term: Callable[[Scope, Sequence[Expr], Expr], Expr],
) -> Expr:
    """Combine the elements of a row and return the result.

    Args:
        b: The kernel.
        scope: What is known around the row.
        how: How to combine.
        outer: First and count of the row's outer dimensions.
        inner: First and count of the dimension along which memory runs.
        term: Gives an element.
    """
    code, lanes = b.code, b.lanes(how.dtype)
    first, count = inner
    unroll = UNROLL if not isinstance(count, int) else max(1, min(UNROLL, count // lanes))
    if isinstance(count, int) and count < lanes:
        return _scalar_total(b, scope, how, [*outer, inner], term)
    total = code.local(lanes * unroll, how.dtype)

    def clear(_: Scope, i: Expr) -> None:
        code.emit(total.store(i, how.neutral))

    for u in range(unroll):
        b.lane(lanes, code.const(u * lanes), clear, scope)
    with loops(b, outer) as ks:
        _row_vectors(b, scope, how, total, (first, count, unroll), lambda s, i: term(s, ks, i))
    for u in range(1, unroll):

        def fold(_: Scope, i: Expr, u: int = u) -> None:
            code.emit(total.store(i, how.combine(total.load(i), total.load(i + u * lanes))))

        b.lane(lanes, code.const(0), fold, scope)
    width = lanes
    while width > 1:
        width //= 2

        def halve(_: Scope, i: Expr, width: int = width) -> None:
            code.emit(total.store(i, how.combine(total.load(i), total.load(i + width))))

        b.lane(width, code.const(0), halve, scope)
    return code.bind(total.load(code.const(0)))


def _row_vectors(
    b: Builder,
    scope: Scope,
    how: Monoid,
    total: Memory,
    line: tuple[Expr, Expr, int],
    term: Callable[[Scope, Expr], Expr],
) -> None:
    """Add one line of a row to the accumulators; its rest to the first of them."""
    code, lanes = b.code, b.lanes(how.dtype)
    first, count, unroll = line
    step = lanes * unroll
    place = code.mark()

    def add(at: Expr, i: Expr, inner: Scope) -> None:
        code.emit(total.store(at, how.combine(total.load(at), term(inner, i))))

    try:
        with code.loop(_div(count, step)) as block:
            for u in range(unroll):
                with code.loop(lanes, "vectorized") as j:
                    add(
                        u * lanes + j, first + block * step + u * lanes + j, scope.inner(lane=j)
                    )
        done = _div(count, step) * step
        rest = count - done
        with code.loop(_div(rest, lanes)) as block, code.loop(lanes, "vectorized") as j:
            add(j, first + done + block * lanes + j, scope.inner(lane=j))
        done = done + _div(rest, lanes) * lanes
        with code.loop(count - done) as i:
            add(code.const(0), first + done + i, scope.inner())
    except NotVectorizableError:
        code.rewind(place)
        with code.loop(count) as i:
            add(code.const(0), first + i, scope.inner())


def _div(n: Expr, by: int) -> Expr:
    return n // by if isinstance(n, int) else tirx.floordiv(n, by)


def _scalar_total(
    b: Builder,
    scope: Scope,
    how: Monoid,
    ranges: Sequence[tuple[Expr, Expr]],
    term: Callable[[Scope, Sequence[Expr], Expr], Expr],
) -> Expr:
    code = b.code
    total, zero = code.local(1, how.dtype), code.const(0)
    code.emit(total.store(zero, how.neutral))
    with loops(b, ranges) as ks:
        value = term(scope.inner(), ks[:-1], ks[-1])
        code.emit(total.store(zero, how.combine(total.load(zero), value)))
    return code.bind(total.load(zero))
