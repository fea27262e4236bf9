"""Depthwise convolutions and their gradients, vectors of channels.

Memory bound: the images are read as they are, without a padded copy. Columns at the border,
which some taps miss, are written out one by one with the taps they have; rows outside are
skipped at run time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.tile import near, spread, task_rows
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.values import Index, Scope, Source, Stored, number
from pockc.ir.types import TensorType

if TYPE_CHECKING:
    from pockc.backends.tvm.lines import Line

CHANNELS_LAST = (0, 2, 3, 1)


def channels_last(b: Builder, x: Source) -> Stored:
    """Return images with neighbouring channels side by side, copied if they are not."""
    if isinstance(x, Stored) and (x.strides[1] == 1 or x.type.shape[1] == 1):
        return x
    return b.copy(x, x.type.with_layout(CHANNELS_LAST))


def convolve(
    b: Builder, x: Source, filters: Stored, lines: Sequence[Sequence[Line]], sink: Sink
) -> None:
    """Write a depthwise convolution, or an input gradient, phase by phase.

    Args:
        b: The kernel.
        x: Images (N, C, H, W).
        filters: Of shape (R, S, C).
        lines: The phases of height and width.
        sink: Takes the results.
    """
    images = channels_last(b, x)
    if filters.strides[2] != 1 and filters.type.shape[2] != 1:
        filters = b.copy(filters)
    for rows in lines[0]:
        for line in lines[1]:
            _Rows(b, images, filters, sink, rows, line).emit()


@dataclass(frozen=True, slots=True)
class _Rows:
    """One phase."""

    b: Builder
    x: Stored
    filters: Stored
    sink: Sink
    rows: Line
    line: Line

    def emit(self) -> None:
        """Write the loops: rows of results in parallel, vectors of channels, columns."""
        b, x = self.b, self.x
        images, channels = x.type.shape[:2]
        work = (
            images
            * self.rows.count
            * self.line.count
            * channels
            * self.rows.taps
            * self.line.taps
        )
        usual = 8 if b.target.vector_registers >= 32 else 4
        width = b.choose("columns", usual, (usual // 2, 3 * usual // 2, usual + 4))
        inner = interior(self.line)
        with b.nest((images, self.rows.count), b.kind(work)) as (n, q):
            for c, lanes in channel_vectors(b, x):
                for start, columns in stretches(b, self.line.count, inner, width):
                    self._tile(n, q, c, lanes, start, columns)

    def _tile(
        self,
        n: Expr,
        q: Expr,
        c: Expr,
        lanes: int,
        start: Expr,
        columns: Sequence[int | None],
    ) -> None:
        """Write some neighbouring columns; a number marks a column at the border."""
        b, code, rows, line = self.b, self.b.code, self.rows, self.line
        dtype = self.x.type.dtype
        total = code.local(len(columns) * lanes, dtype)
        for i in range(len(columns)):
            code.emit(
                total.store(code.const(i * lanes), spread(number(0, dtype), lanes), lanes)
            )
        with code.loop(rows.taps) as r:
            row = code.bind(q * rows.in_step + r * rows.tap_step + rows.offset)
            guard = None if rows.inside else tirx.And(row >= 0, row < rows.size)
            with code.when(guard):
                self._taps(total, (n, row, c, start), (r, lanes), columns)

        def put(scope: Scope, j: Expr, i: int) -> None:
            where = place_of(n, c + j, (rows, q), (line, start + i))
            self.sink.put(scope, where, total.load(j + i * lanes))

        for i in range(len(columns)):
            b.lane(lanes, code.const(0), lambda scope, j, i=i: put(scope, j, i), b.scope())  # type: ignore[misc]

    def _taps(
        self,
        total: Memory,
        at: tuple[Expr, Expr, Expr, Expr],
        tap: tuple[Expr, int],
        columns: Sequence[int | None],
    ) -> None:
        code, line = self.b.code, self.line
        (n, row, c, start), (r, lanes) = at, tap
        origin = code.bind(self.x.offset((n, c, row, start * line.in_step + line.offset)))
        step = self.x.strides[3]
        loaded: dict[int, Expr] = {}
        for s in range(line.taps):
            weight = None
            for i, column in enumerate(columns):
                if column is not None and not meets(line, column, s):
                    continue
                if weight is None:
                    where = self.filters.offset(
                        (
                            r * self.rows.filter_step + self.rows.first_tap,
                            s * line.filter_step + line.first_tap,
                            c,
                        )
                    )
                    weight = code.bind(self.filters.memory.load(where, lanes))
                shift = i * line.in_step + s * line.tap_step
                if shift not in loaded:
                    loaded[shift] = code.bind(self.x.memory.load(origin + shift * step, lanes))
                place = code.const(i * lanes)
                value = total.load(place, lanes) + loaded[shift] * weight
                code.emit(total.store(place, value, lanes))


def channel_vectors(b: Builder, x: Source) -> Iterator[tuple[Expr, int]]:
    """Yield vectors of the channels of images, as (first channel, lanes), in loops."""
    lanes = b.lanes(x.type.dtype)
    whole, rest = divmod(x.type.shape[1], lanes)
    with b.code.loop(whole) as block:
        if whole:
            yield b.code.bind(block * lanes), lanes
    if rest:
        yield b.code.const(whole * lanes), rest


def stretches(
    b: Builder, count: int, inner: tuple[int, int], width: int
) -> Iterator[tuple[Expr, list[int | None]]]:
    """Yield neighbouring columns, as (first column, columns), in loops.

    Args:
        b: The kernel.
        count: Number of columns.
        inner: The columns (first, last + 1) that are all alike: they come `width` at a time and
            are listed as None. The others come one by one with their numbers.
        width: See `inner`.
    """
    first, last = inner
    for w in range(first):
        yield b.code.const(w), [w]
    tiles, rest = divmod(last - first, width)
    with b.code.loop(tiles) as t:
        if tiles:
            yield b.code.bind(t * width + first), [None] * width
    if rest:
        yield b.code.const(first + tiles * width), [None] * rest
    for w in range(last, count):
        yield b.code.const(w), [w]


def interior(line: Line) -> tuple[int, int]:
    """Return the results (first, last + 1) all of whose taps lie inside the source."""
    fine = [q for q in range(line.count) if all(meets(line, q, t) for t in range(line.taps))]
    return (fine[0], fine[-1] + 1) if fine and line.taps else (line.count, line.count)


def meets(line: Line, q: int, tap: int) -> bool:
    """Return whether a tap of a result lies inside the source."""
    return 0 <= q * line.in_step + line.offset + tap * line.tap_step < line.size


def place_of(
    n: Expr, channel: Expr, row: tuple[Line, Expr], column: tuple[Line, Expr]
) -> Index:
    """Return the index of a result."""
    index: list[Expr] = [n, channel]
    for line, q in (row, column):
        index.append(q * line.out_step + line.phase if line.out_step > 1 else q)
    return tuple(index)


def weight_gradient(
    b: Builder, x: Source, dy: Source, lines: Sequence[Line], sink: Sink
) -> None:
    """Write the gradient of depthwise filters (C, 1, R, S).

    Rows of images are divided between the threads; each part adds up its own sums of all
    filters, vectors of channels at a time, and the parts are added at the end.
    """
    images, given = channels_last(b, x), channels_last(b, dy)
    _WeightGradient(b, images, given, lines[0], lines[1], sink).emit()


@dataclass(frozen=True, slots=True)
class _WeightGradient:
    """The loops of a depthwise weight gradient."""

    b: Builder
    x: Stored
    dy: Stored
    rows: Line
    line: Line
    sink: Sink

    def emit(self) -> None:
        """Write the partial sums and their total."""
        b = self.b
        n, c = self.x.type.shape[:2]
        r, s = self.rows.taps, self.line.taps
        dtype = self.x.type.dtype
        height = max(1, min(self.rows.count, 4096 // max(1, self.line.count)))
        work = n * self.rows.count * self.line.count * c * r * s
        threads = b.part_count(b.threads, work)
        height = task_rows(n, self.rows.count, height, threads)
        height = b.choose("block", height, near(height, self.rows.count))
        tasks = -(-self.rows.count // height)
        parts = b.part_count(n * tasks, work)
        partial = b.stage(TensorType((parts, r, s, c), dtype))
        with b.parts(n * tasks, work) as (part, first, count):
            self._clear(partial, part)
            with b.code.loop(count) as t:
                image, task = b.unravel(b.code.bind(first + t), (n, tasks))
                begin = b.code.bind(task * height)
                end = b.code.bind(tirx.min(begin + height, self.rows.count))
                for at, lanes in channel_vectors(b, self.x):
                    self._block(partial, part, (image, begin, end), at, lanes)

        def total(scope: Scope, index: Index) -> None:
            i, j, channel = index
            value = partial.at(scope, (0, i, j, channel))
            for other in range(1, parts):
                value = value + partial.at(scope, (other, i, j, channel))
            self.sink.put(scope, (channel, 0, i, j), value)

        b.injective(TensorType((r, s, c), dtype), parts, total)

    def _clear(self, partial: Stored, part: Expr) -> None:
        b, size = self.b, math.prod(partial.type.shape[1:])

        def zero(_: Scope, i: Expr) -> None:
            b.code.emit(partial.memory.store(part * size + i, number(0, partial.type.dtype)))

        b.vector(size, b.lanes(partial.type.dtype), zero, b.scope())

    def _block(
        self,
        partial: Stored,
        part: Expr,
        where: tuple[Expr, Expr, Expr],
        c: Expr,
        lanes: int,
    ) -> None:
        """Add the rows of one task to the sums of one vector of channels."""
        r, s = self.rows.taps, self.line.taps
        together = r if r * s <= 12 else 1
        for first in range(0, r, together):
            self._sums(partial, part, where, (c, lanes), range(first, min(r, first + together)))

    def _sums(
        self,
        partial: Stored,
        part: Expr,
        where: tuple[Expr, Expr, Expr],
        channels: tuple[Expr, int],
        taps: range,
    ) -> None:
        code, line = self.b.code, self.line
        (n, begin, end), (c, lanes) = where, channels
        s = line.taps
        total = code.local(len(taps) * s * lanes, partial.type.dtype)
        spots = [(k, r, t) for k, r in enumerate(taps) for t in range(s)]
        for k, r, t in spots:
            value = partial.memory.load(partial.offset((part, r, t, c)), lanes)
            code.emit(total.store(code.const((k * s + t) * lanes), value, lanes))
        with code.loop(end - begin) as step:
            q = code.bind(begin + step)
            self._row(total, (n, q, c), lanes, taps)
        for k, r, t in spots:
            value = total.load(code.const((k * s + t) * lanes), lanes)
            code.emit(partial.memory.store(partial.offset((part, r, t, c)), value, lanes))

    def _row(self, total: Memory, at: tuple[Expr, Expr, Expr], lanes: int, taps: range) -> None:
        line = self.line
        for start, columns in stretches(self.b, line.count, interior(line), 4):
            self._columns(total, at, lanes, taps, start, columns)

    def _columns(
        self,
        total: Memory,
        at: tuple[Expr, Expr, Expr],
        lanes: int,
        taps: range,
        start: Expr,
        columns: Sequence[int | None],
    ) -> None:
        code, rows = self.b.code, self.rows
        n, q, c = at
        origin = code.bind(self.dy.offset((n, c, q, start)))
        given = [
            code.bind(self.dy.memory.load(origin + i * self.dy.strides[3], lanes))
            for i in range(len(columns))
        ]
        for k, r in enumerate(taps):
            row = code.bind(q * rows.in_step + (r * rows.tap_step + rows.offset))
            guard = None if rows.inside else tirx.And(row >= 0, row < rows.size)
            with code.when(guard):
                self._add(total, k, (n, row, c, start), lanes, given, columns)

    def _add(
        self,
        total: Memory,
        k: int,
        at: tuple[Expr, Expr, Expr, Expr],
        lanes: int,
        given: Sequence[Expr],
        columns: Sequence[int | None],
    ) -> None:
        code, line = self.b.code, self.line
        n, row, c, start = at
        origin = code.bind(self.x.offset((n, c, row, start * line.in_step + line.offset)))
        loaded: dict[int, Expr] = {}
        for t in range(line.taps):
            place = code.const((k * line.taps + t) * lanes)
            for i, column in enumerate(columns):
                if column is not None and not meets(line, column, t):
                    continue
                shift = i * line.in_step + t * line.tap_step
                if shift not in loaded:
                    where = origin + shift * self.x.strides[3]
                    loaded[shift] = code.bind(self.x.memory.load(where, lanes))
                value = total.load(place, lanes) + loaded[shift] * given[i]
                code.emit(total.store(place, value, lanes))
