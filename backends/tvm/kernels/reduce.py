"""Sums, maxima and minima along axes.

Two forms. Where memory runs along a reduced axis, a row is summed in several vectors that are
added up at the end. Where it runs along a kept axis, the lanes are neighbouring results. With
few results and much to add, the longest reduced axis is divided between the threads and the
partial results are combined afterwards, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.pointwise import memory_order, merged_source
from pockc.backends.tvm.sums import UNROLL, Monoid, blocks, loops, monoid, row_total
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, Scope, Source
from pockc.ir.graph import Node
from pockc.ir.types import TensorType


@lower("reduce_sum", "reduce_max", "reduce_min")
def _reduce(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x = operands[0]
    axes = sorted(a % x.type.rank for a in node.attrs["axes"])
    kept = [d for d in range(x.type.rank) if d not in axes]
    keepdims = bool(node.attrs["keepdims"])

    def result_index(index: Index) -> Index:
        """Return the index of the result from that of the operand."""
        if keepdims:
            return tuple(0 if d in axes else i for d, i in enumerate(index))
        return tuple(index[d] for d in kept)

    Reduction(b, x, tuple(axes), monoid(node.op, x.type.dtype), sink, result_index).emit()


@dataclass(slots=True)
class Reduction:
    """One reduction of a tensor along axes, in the order in which the tensor lies in memory."""

    b: Builder
    x: Source
    axes: tuple[int, ...]
    how: Monoid
    sink: Sink
    result_index: Callable[[Index], Index]

    def emit(self) -> None:
        """Choose the form and write it."""
        shape = self.x.type.shape
        order = [d for d in memory_order(self.x) if shape[d] != 1]
        reduced = [d for d in order if d in self.axes]
        kept = [d for d in order if d not in self.axes]
        rows = bool(reduced) and order[-1] in reduced
        results = math.prod(shape[d] for d in kept)
        groups = self._groups(order)
        x = merged_source(self.x, groups)
        if x is None:
            groups, x = [[d] for d in order], merged_source(self.x, [[d] for d in order])
        if x is None:
            x = _Reordered(self.x, tuple(order))
        loops = _Loops(self, x, groups, rows)
        big = self.x.type.size >= 1 << 16 and self.b.threads > 1
        enough = self.b.threads * (1 if rows else 4 * self.b.lanes(self.how.dtype))
        if big and results < enough and reduced:
            loops.split()
        else:
            loops.whole()

    def _groups(self, order: Sequence[int]) -> list[list[int]]:
        """Return neighbouring dimensions of one kind together."""
        groups: list[list[int]] = []
        for d in order:
            if groups and (groups[-1][-1] in self.axes) == (d in self.axes):
                groups[-1].append(d)
            else:
                groups.append([d])
        return groups


@dataclass(frozen=True, eq=False, slots=True)
class _Reordered:
    """A tensor with its dimensions in another order, those of size 1 left out."""

    x: Source
    order: tuple[int, ...]

    @property
    def type(self) -> TensorType:
        return TensorType(tuple(self.x.type.shape[d] for d in self.order), self.x.type.dtype)

    def at(self, scope: Scope, index: Index, guard: Expr | None = None) -> Expr:
        place: list[Expr] = [0] * self.x.type.rank
        for d, i in zip(self.order, index, strict=True):
            place[d] = i
        return self.x.at(scope, tuple(place), guard)


@dataclass(slots=True)
class _Loops:
    """The loops of a reduction over merged dimensions.

    Attributes:
        of: The reduction.
        x: Its operand with merged dimensions, in the order of memory.
        groups: The operand's dimensions behind each merged one.
        rows: Whether the last dimension is reduced.
    """

    of: Reduction
    x: Source
    groups: list[list[int]]
    rows: bool

    @property
    def reduced(self) -> list[int]:
        """The merged dimensions that are reduced."""
        return [g for g, dims in enumerate(self.groups) if dims[0] in self.of.axes]

    @property
    def kept(self) -> list[int]:
        """The merged dimensions that stay."""
        return [g for g, dims in enumerate(self.groups) if dims[0] not in self.of.axes]

    def size(self, g: int) -> int:
        """Return the size of a merged dimension."""
        return self.x.type.shape[g]

    def put(self, scope: Scope, kept: Sequence[Expr], value: Expr) -> None:
        """Give a result to the sink."""
        shape = self.of.x.type.shape
        index: list[Expr] = [0] * len(shape)
        for g, i in zip(self.kept, kept, strict=True):
            dims = self.groups[g]
            if len(dims) == 1:
                index[dims[0]] = i
                continue
            rest: Expr = i
            for d in reversed(dims):
                first = d == dims[0]
                index[d] = rest if first else tirx.floormod(rest, shape[d])
                rest = rest if first else tirx.floordiv(rest, shape[d])
        self.of.sink.put(scope, self.of.result_index(tuple(index)), value)

    def whole(self) -> None:
        """Reduce every result in one go, results in parallel."""
        ranges = {g: (0, self.size(g)) for g in self.reduced}
        self._results(ranges, self.put, self.of.b.kind(self.of.x.type.size))

    def split(self) -> None:
        """Divide the largest reduced dimension between the threads, then combine."""
        b, how = self.of.b, self.of.how
        along = max(self.reduced, key=self.size)
        work = self.of.x.type.size
        count = b.part_count(self.size(along), work)
        sizes = tuple(self.size(g) for g in self.kept)
        partial = b.stage(TensorType((count, *sizes), how.dtype))
        with b.parts(self.size(along), work) as (part, first, rounds):
            ranges = {g: (0, self.size(g)) for g in self.reduced} | {along: (first, rounds)}

            def keep(scope: Scope, kept: Sequence[Expr], value: Expr) -> None:
                where = partial.offset((part, *kept))
                scope.code.emit(partial.memory.store(where, value))

            self._results(ranges, keep, "serial")

        def total(scope: Scope, index: Index) -> None:
            value = how.neutral
            for part_number in range(count):
                value = how.combine(value, partial.at(scope, (part_number, *index)))
            self.put(scope, index, value)

        b.injective(TensorType(sizes, how.dtype), count, total)

    def _results(
        self,
        ranges: dict[int, tuple[Expr, Expr]],
        put: Callable[[Scope, Sequence[Expr], Expr], None],
        kind: str,
    ) -> None:
        if self.rows:
            self._rows(ranges, put, kind)
        else:
            self._columns(ranges, put, kind)

    def _rows(
        self,
        ranges: dict[int, tuple[Expr, Expr]],
        put: Callable[[Scope, Sequence[Expr], Expr], None],
        kind: str,
    ) -> None:
        b = self.of.b
        *outer, inner = self.reduced
        with b.nest([self.size(g) for g in self.kept], kind) as kept:

            def term(scope: Scope, ks: Sequence[Expr], i: Expr) -> Expr:
                return self.x.at(scope, self._index(kept, [*ks, i]))

            value = row_total(
                b, b.scope(), self.of.how, [ranges[g] for g in outer], ranges[inner], term
            )
            put(b.scope(), kept, value)

    def _columns(
        self,
        ranges: dict[int, tuple[Expr, Expr]],
        put: Callable[[Scope, Sequence[Expr], Expr], None],
        kind: str,
    ) -> None:
        b = self.of.b
        outer, last = self.kept[:-1], self.kept[-1:]
        n = self.size(last[0]) if last else 1
        with b.nest([self.size(g) for g in outer], kind) as kept:
            for first, rounds, widths in blocks(n, b.lanes(self.of.how.dtype), UNROLL):
                with b.code.loop(rounds) as block:
                    start = block * sum(widths) + first
                    self._column_block(ranges, put, (kept, start, bool(last)), widths)

    def _column_block(
        self,
        ranges: dict[int, tuple[Expr, Expr]],
        put: Callable[[Scope, Sequence[Expr], Expr], None],
        where: tuple[Sequence[Expr], Expr, bool],
        widths: Sequence[int],
    ) -> None:
        b, how = self.of.b, self.of.how
        code = b.code
        kept, first, has_inner = where
        total = code.local(sum(widths), how.dtype)
        starts = [sum(widths[:v]) for v in range(len(widths))]

        def each(body: Callable[[Scope, Expr], None]) -> None:
            for start, width in zip(starts, widths, strict=True):
                b.lane(width, code.const(start), body, b.scope())

        def place(i: Expr) -> list[Expr]:
            return [*kept, first + i] if has_inner else list(kept)

        each(lambda scope, i: scope.code.emit(total.store(i, how.neutral)))
        with loops(b, [ranges[g] for g in self.reduced]) as ks:

            def add(scope: Scope, i: Expr) -> None:
                value = self.x.at(scope, self._index(place(i), ks))
                scope.code.emit(total.store(i, how.combine(total.load(i), value)))

            each(add)
        each(lambda scope, i: put(scope, place(i), total.load(i)))

    def _index(self, kept: Sequence[Expr], reduced: Sequence[Expr]) -> Index:
        index: list[Expr] = [0] * len(self.groups)
        for g, i in zip(self.kept, kept, strict=True):
            index[g] = i
        for g, i in zip(self.reduced, reduced, strict=True):
            index[g] = i
        return tuple(index)
