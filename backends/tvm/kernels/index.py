"""Ops whose addresses are data, and running sums: plain loops, results in parallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.sums import loops
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, Scope, Source, Stored, number
from pockc.ir.graph import Node
from pockc.ir.types import DType, TensorType


@lower("cumsum")
def _cumsum(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, axis = operands[0], node.attrs["axis"]
    others = [d for d in node.type.order if d != axis]
    with b.nest([node.type.shape[d] for d in others], b.kind(node.type.size)) as found:
        total, zero = b.code.local(1, node.type.dtype), b.code.const(0)
        b.code.emit(total.store(zero, number(0, node.type.dtype)))
        with b.code.loop(node.type.shape[axis]) as i:
            index = _placed(node.type.rank, others, found, axis, i)
            scope = b.scope()
            value = b.code.bind(total.load(zero) + x.at(scope, index))
            b.code.emit(total.store(zero, value))
            sink.put(scope, index, value)


def _placed(
    rank: int, others: Sequence[int], found: Sequence[Expr], axis: int, i: Expr
) -> Index:
    index: list[Expr] = [0] * rank
    for d, at in zip(others, found, strict=True):
        index[d] = at
    index[axis] = i
    return tuple(index)


@lower("argmax")
def _argmax(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, axis = operands[0], node.attrs["axis"]
    rank, dtype = x.type.rank, x.type.dtype
    others = [d for d in range(rank) if d != axis]
    code, zero = b.code, b.code.const(0)
    with b.nest([x.type.shape[d] for d in others], b.kind(x.type.size)) as found:
        best, where = code.local(1, dtype), code.local(1, DType.I64)
        scope = b.scope()
        code.emit(best.store(zero, x.at(scope, _placed(rank, others, found, axis, 0))))
        code.emit(where.store(zero, number(0, DType.I64)))
        with code.loop(x.type.shape[axis]) as i:
            inner = b.scope()
            value = code.bind(x.at(inner, _placed(rank, others, found, axis, i)))
            with code.when(value > best.load(zero)):
                code.emit(best.store(zero, value))
                code.emit(where.store(zero, tirx.Cast("int64", i)))
        index = tuple(
            0 if x.type.shape[d] == 1 else i for d, i in zip(others, found, strict=True)
        )
        sink.put(b.scope(), index, code.bind(where.load(zero)))


@lower("put")
def _put(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Copy, unless the result is the first operand's memory; then write the chosen rows."""
    x, v = operands
    axis, rows = node.attrs["axis"], node.attrs["indices"]
    if node.attrs.get("inplace") is None:
        b.injective(sink.type, 1, lambda s, index: sink.put(s, index, x.at(s, index)))
    first, last = (rows[0], rows[-1]) if rows else (0, 0)
    runs = list(rows) == list(range(first, last + 1))
    shape = v.type.shape
    if v.type.size == 0:
        return
    if runs:

        def move(scope: Scope, index: Index) -> None:
            there = (*index[:axis], index[axis] + first, *index[axis + 1 :])
            sink.put(scope, there, v.at(scope, index))

        b.injective(v.type, 1, move)
        return
    one = TensorType((*shape[:axis], 1, *shape[axis + 1 :]), v.type.dtype, v.type.layout)
    for k, row in enumerate(rows):

        def place(scope: Scope, index: Index, k: int = k, row: int = row) -> None:
            here = (*index[:axis], k, *index[axis + 1 :])
            sink.put(scope, (*index[:axis], row, *index[axis + 1 :]), v.at(scope, here))

        b.injective(one, 1, place)


@lower("take_grad")
def _take_grad(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Each part owns some rows of the result, and walks over all indices in order."""
    dy, idx = operands
    axis, size = node.attrs["axis"], node.attrs["size"]
    rank = idx.type.rank
    total = _sum_buffer(b, node, sink)
    before, after = dy.type.shape[:axis], dy.type.shape[axis + rank :]
    work = dy.type.size
    with b.parts(size, node.type.size + work) as (_, first, count):
        _clear(b, total, axis, first, count)
        with (
            _rows_between(b, idx, first, count) as (at, row),
            loops(b, [(0, n) for n in before]) as left,
        ):

            def add(s: Scope, right: Index) -> None:
                there = (*left, row, *right)
                _set(s, total, there, total.at(s, there) + dy.at(s, (*left, *at, *right)))

            _each(b, after, add)
    _hand_over(b, total, sink)


@lower("index_add")
def _index_add(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Copy, unless the result is the first operand's memory; then add rows.

    Each part owns some rows of the result. Rows of dy for the same place are first added up
    at the first of them, so that many small ones are not lost one by one.
    """
    x, dy, idx = operands
    code, size, after = b.code, x.type.shape[0], x.type.shape[1:]
    total = _sum_buffer(b, node, sink)
    if node.attrs.get("inplace") is None:
        b.injective(x.type, 1, lambda s, at: _set(s, total, at, x.at(s, at)))
    flat = TensorType((max(1, idx.type.size), *after), node.type.dtype)
    sums = b.stage(flat)
    # For each row of the result the place in `sums` where it is added up, from 1; 0: nowhere.
    place = b.workspace(size, DType.I32)
    with b.parts(size, 3 * dy.type.size + size) as (_, first, count):
        with code.loop(count) as i:
            code.emit(place.store(first + i, number(0, DType.I32)))
        with _rows_between(b, idx, first, count) as (at, row):
            own = code.bind(_number_of(at, idx.type.shape))
            known = code.bind(place.load(row))
            with code.when(known == 0):
                code.emit(place.store(row, tirx.Cast("int32", own + 1)))
                _each(b, after, lambda s, r: _set(s, sums, (own, *r), dy.at(s, (*at, *r))))
            with code.when(known != 0):

                def gather(s: Scope, r: Index) -> None:
                    there = (tirx.Cast(code.index_dtype, known - 1), *r)
                    _set(s, sums, there, sums.at(s, there) + dy.at(s, (*at, *r)))

                _each(b, after, gather)
        with _rows_between(b, idx, first, count) as (at, row):
            own = code.bind(_number_of(at, idx.type.shape))
            with code.when(place.load(row) == tirx.Cast("int32", own + 1)):

                def add(s: Scope, r: Index) -> None:
                    there = (row, *r)
                    _set(s, total, there, total.at(s, there) + sums.at(s, (own, *r)))

                _each(b, after, add)
    _hand_over(b, total, sink)


@contextmanager
def _rows_between(
    b: Builder, idx: Source, first: Expr, count: Expr
) -> Iterator[tuple[Index, Expr]]:
    """Run over an index; yields where in it, and the row it names, if that is in a range."""
    with loops(b, [(0, n) for n in idx.type.shape]) as at:
        row = b.code.bind(tirx.Cast(b.code.index_dtype, idx.at(b.scope(), at)))
        with b.code.when(tirx.And(row >= first, row < first + count)):
            yield at, row


def _number_of(at: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """Return the number of an element in row-major order."""
    found: Expr = 0
    for i, n in zip(at, shape, strict=True):
        found = found * n + i
    return found


@lower("take_along_grad")
def _take_along_grad(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """As `take_grad`; every element has an index of its own."""
    dy, idx = operands
    axis, size = node.attrs["axis"], node.attrs["size"]
    total = _sum_buffer(b, node, sink)
    with b.parts(size, node.type.size + dy.type.size) as (_, first, count):
        _clear(b, total, axis, first, count)
        with loops(b, [(0, n) for n in dy.type.shape]) as at:
            scope = b.scope()
            row = b.code.bind(tirx.Cast(b.code.index_dtype, idx.at(scope, at)))
            with b.code.when(tirx.And(row >= first, row < first + count)):
                inner = b.scope()
                there = (*at[:axis], row, *at[axis + 1 :])
                _set(inner, total, there, total.at(inner, there) + dy.at(inner, at))
    _hand_over(b, total, sink)


def _sum_buffer(b: Builder, node: Node, sink: Sink) -> Stored:
    """Return where to add up: the result itself if nothing else happens to it."""
    target = getattr(sink, "target", None)
    return target if isinstance(target, Stored) else b.stage(node.type)


def _hand_over(b: Builder, total: Stored, sink: Sink) -> None:
    if getattr(sink, "target", None) is not total:
        b.injective(sink.type, 1, lambda s, index: sink.put(s, index, total.at(s, index)))


def _clear(b: Builder, total: Stored, axis: int, first: Expr, count: Expr) -> None:
    """Set rows to zero."""
    shape = total.type.shape
    ranges = [(0, n) for n in shape[:axis]] + [(first, count)]
    with loops(b, ranges) as left:

        def zero(scope: Scope, right: Index) -> None:
            _set(scope, total, (*left, *right), number(0, total.type.dtype))

        _each(b, shape[axis + 1 :], zero)


def _each(b: Builder, shape: Sequence[int], body: Callable[[Scope, Index], None]) -> None:
    """Run over a row-major shape, the last dimension vectorised."""
    if math.prod(shape) == 1:
        body(b.scope(), (0,) * len(shape))
        return
    *outer, n = shape
    with loops(b, [(0, m) for m in outer]) as left:
        b.vector(n, b.lanes(DType.F32), lambda s, i: body(s, (*left, i)), b.scope())


def _set(scope: Scope, target: Stored, index: Index, value: Expr) -> None:
    scope.code.emit(target.memory.store(_where(scope, target, index), value))


def _where(scope: Scope, target: Stored, index: Index) -> Expr:
    where = target.offset(index)
    return scope.code.const(where) if isinstance(where, int) else where
