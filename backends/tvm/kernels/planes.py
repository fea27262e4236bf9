"""Convolutions as register tiles: bands of the source, panels of the filters.

See `convolution.py` for the idea.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.kernels.panels import pack
from pockc.backends.tvm.lines import Line, place
from pockc.backends.tvm.tile import (
    Tile,
    Vectors,
    best_shape,
    column_tiles,
    compute,
    near,
    row_tiles,
    task_rows,
)
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.values import Index, Scope, Source, Stored, number
from pockc.ir.types import TensorType

DIRECT_COLUMNS = 128
"""Filters with at most so many results side by side are read as they are."""


@dataclass(frozen=True, slots=True)
class Planes:
    """A convolution of images with filters (groups, R, S, from, to)."""

    b: Builder
    x: Source
    filters: Stored
    sink: Sink

    def emit(self, lines: Sequence[Sequence[Line]]) -> None:
        """Write all phases. Tiles lie along the image dimension that has room for them."""
        down, along = lines
        axes = (2, 3)
        if along[0].count < 4 and down[0].count > along[0].count:
            down, along, axes = along, down, (3, 2)
        for row_line in down:
            for line in along:
                if row_line.taps and line.taps:
                    with self.b.borrowed():
                        _Phase(self, row_line, line, axes).emit()
                else:
                    self._zeros(row_line, line, axes)

    def _zeros(self, rows: Line, line: Line, axes: tuple[int, int]) -> None:
        """Give zero to results that no tap reaches."""
        n, k = self.sink.type.shape[:2]
        type = TensorType((n, rows.count, line.count, k), self.x.type.dtype)

        def put(scope: Scope, index: Index) -> None:
            at = place(index[0], index[3], (rows, index[1]), (line, index[2]), axes)
            self.sink.put(scope, at, number(0, self.x.type.dtype))

        self.b.injective(type, 1, put)


@dataclass(slots=True)
class _Phase:
    """The results of one phase."""

    of: Planes
    rows: Line
    line: Line
    axes: tuple[int, int]

    @property
    def b(self) -> Builder:
        return self.of.b

    @property
    def channels(self) -> tuple[int, int, int]:
        """Number of groups, and channels per group of the source and of the result."""
        groups, _, _, source, result = self.of.filters.type.shape
        return groups, source, result

    def emit(self) -> None:
        """Write the tasks: some rows of results of one image each."""
        b, x = self.b, self.of.x
        groups, source, result = self.channels
        shape = best_shape(b, x.type.dtype, result)
        direct = self._filters_direct(result)
        whole, full, rest = column_tiles(result, shape, padded=not direct)
        panels = _panels(whole, full, rest)
        right = self._pack(panels, full, whole + (rest is not None), direct=direct)
        images = x.type.shape[0]
        taps = self.rows.taps * self.line.taps
        work = images * self.rows.count * self.line.count * result * source * groups * taps
        in_place = self._reads_in_place()
        band_rows, band_columns = self._band(1)
        height = self._task_rows(images, band_columns * groups * source)
        band_rows, band_columns = self._band(height)
        tasks = -(-self.rows.count // height)
        size = 0 if in_place else band_rows * band_columns * groups * source
        count = b.part_count(images * tasks, work)
        band = None if in_place else b.workspace(count * size, x.type.dtype)
        with b.parts(images * tasks, work) as (part, first, rounds), b.code.loop(rounds) as t:
            n, task = b.unravel(b.code.bind(first + t), (images, tasks))
            start = b.code.bind(task * height)
            left = self._left(n, start, band, part * size, (band_rows, band_columns))
            length: Expr = height
            if self.rows.count % height:
                length = b.code.bind(tirx.min(height, self.rows.count - start))
            with b.code.loop(length) as q:
                for panel, panel_count, vectors in panels:
                    with b.code.loop(groups) as g, b.code.loop(panel_count) as p:
                        at = (n, start, q, g, panel + p)
                        self._row(at, vectors, full, left, right)

    def _filters_direct(self, result: int) -> bool:
        if self.of.filters.strides[-1] != 1:
            return False
        return not self.b.choose("pack", result > DIRECT_COLUMNS, (True, False))

    def _pack(
        self,
        panels: Sequence[tuple[int, int, Vectors]],
        full: Vectors,
        count: int,
        *,
        direct: bool,
    ) -> Callable[..., Expr]:
        """Return how to read filters at (group, panel, column, lanes, (r, s, channel)).

        Packed panels hold, for each tap and source channel, the columns side by side.
        """
        b, w = self.b, self.of.filters
        _, source, _ = self.channels
        taps = (self.rows.taps, self.line.taps)
        if self.axes == (3, 2):
            w = _transposed_taps(w)
        filters = _chosen_taps(w, self.rows, self.line)
        if direct:

            def read(
                g: Expr, p: Expr, j: int, lanes: int, ks: Sequence[Expr], width: int
            ) -> Expr:
                del width
                where = filters.offset((g, *ks, p * full.width + j))
                return filters.memory.load(where, lanes)

            return read
        groups = filters.type.shape[0]
        size = source * full.width
        buffer = b.workspace(groups * count * math.prod(taps) * size, w.type.dtype)

        def base(g: Expr, p: Expr, r: Expr, s: Expr) -> Expr:
            return (((g * count + p) * taps[0] + r) * taps[1] + s) * size

        work = buffer.size
        for first, panel_count, vectors in panels:
            extents = (groups, panel_count, *taps)
            with b.nest(extents, b.kind(work)) as (g, p, r, s):
                start = (first + p) * full.width
                to = b.code.bind(base(g, first + p, r, s))
                pack(b, filters, (g, r, s), start, vectors, buffer, to)

        return _PackedFilters(buffer, base).read

    def _reads_in_place(self) -> bool:
        x = self.of.x
        return (
            isinstance(x, Stored)
            and (x.strides[1] == 1 or x.type.shape[1] == 1)
            and self.rows.inside
            and self.line.inside
        )

    def _band(self, height: int) -> tuple[int, int]:
        """Return rows and columns of the source that some rows of results meet."""
        return tuple(  # type: ignore[return-value]
            (count - 1) * line.in_step + line.high - line.low + 1
            for line, count in ((self.rows, height), (self.line, self.line.count))
        )

    def _task_rows(self, images: int, row_floats: int) -> int:
        """Return how many rows of results a task has: as the cache and the threads like it."""
        b = self.b
        fits = b.target.l2_bytes // 4 // (4 * row_floats * self.rows.in_step)
        most = max(1, min(self.rows.count, fits))
        most = b.choose("block", most, near(most, self.rows.count))
        return task_rows(images, self.rows.count, most, b.threads)

    def _left(
        self,
        n: Expr,
        start: Expr,
        band: Memory | None,
        base: Expr,
        size: tuple[int, int],
    ) -> Callable[[Expr, Expr, int, Expr, Sequence[Expr]], Expr]:
        """Return how to read the source at (row, column, further, group, (r, s, channel))."""
        x = self.of.x
        _, source, _ = self.channels
        rows, line = self.rows, self.line
        if band is None and isinstance(x, Stored):

            def direct(q: Expr, w: Expr, i: int, g: Expr, ks: Sequence[Expr]) -> Expr:
                r, s, c = ks
                index: list[Expr] = [n, g * source + c, 0, 0]
                index[self.axes[0]] = (
                    (start + q) * rows.in_step + r * rows.tap_step + rows.offset
                )
                index[self.axes[1]] = (w + i) * line.in_step + s * line.tap_step + line.offset
                return x.memory.load(x.offset(index))

            return direct
        if band is None:
            raise ValueError("a computed source needs a band")
        channels = x.type.shape[1]
        self._fill(n, start, band, base, size)
        columns = size[1]

        def read(q: Expr, w: Expr, i: int, g: Expr, ks: Sequence[Expr]) -> Expr:
            r, s, c = ks
            row = q * rows.in_step + r * rows.tap_step + (rows.offset - rows.low)
            column = (w + i) * line.in_step + s * line.tap_step + (line.offset - line.low)
            return band.load(base + (row * columns + column) * channels + g * source + c)

        return read

    def _fill(
        self, n: Expr, start: Expr, band: Memory, base: Expr, size: tuple[int, int]
    ) -> None:
        """Copy the rows that a task needs, with zeros for what lies outside."""
        b, x, line = self.b, self.of.x, self.line
        channels = x.type.shape[1]
        before = min(max(0, -line.low), size[1])
        inside = max(0, min(size[1] - before, line.size - max(0, line.low)))
        first_column = max(0, line.low)
        with b.code.loop(size[0]) as r:
            row = b.code.bind(start * self.rows.in_step + r + self.rows.low)
            to = b.code.bind(base + r * (size[1] * channels))
            there = tirx.And(row >= 0, row < self.rows.size)
            with b.code.when(there):
                self._zero(band, to, before * channels)
                self._copy_row(n, row, first_column, inside, band, to + before * channels)
                done = (before + inside) * channels
                self._zero(band, to + done, (size[1] - before - inside) * channels)
            with b.code.when(tirx.Not(there)):
                self._zero(band, to, size[1] * channels)

    def _copy_row(
        self, n: Expr, row: Expr, first: int, count: int, band: Memory, to: Expr
    ) -> None:
        b, x = self.b, self.of.x
        channels, lanes = x.type.shape[1], b.lanes(x.type.dtype)
        across = self.axes[1]
        if isinstance(x, Stored) and x.strides[1] == 1 and x.strides[across] == channels:
            index: list[Expr] = [n, 0, 0, 0]
            index[self.axes[0]], index[across] = row, first
            origin = b.code.bind(x.offset(index))

            def move(_: Scope, i: Expr) -> None:
                b.code.emit(band.store(to + i, x.memory.load(origin + i)))

            b.vector(count * channels, lanes, move, b.scope())
            return
        with b.code.loop(count) as w:

            def fetch(scope: Scope, c: Expr) -> None:
                at: list[Expr] = [n, c, 0, 0]
                at[self.axes[0]], at[across] = row, w + first
                b.code.emit(band.store(to + w * channels + c, x.at(scope, tuple(at))))

            b.vector(channels, lanes, fetch, b.scope())

    def _zero(self, band: Memory, to: Expr, count: int) -> None:
        def clear(_: Scope, i: Expr) -> None:
            self.b.code.emit(band.store(to + i, number(0, band.dtype)))

        self.b.vector(count, self.b.lanes(band.dtype), clear, self.b.scope())

    def _row(
        self,
        at: tuple[Expr, Expr, Expr, Expr, Expr],
        vectors: Vectors,
        full: Vectors,
        left: Callable[[Expr, Expr, int, Expr, Sequence[Expr]], Expr],
        right: Callable[..., Expr],
    ) -> None:
        """Write the tiles of one row and one panel."""
        shape = best_shape(self.b, self.of.x.type.dtype, self.channels[2])
        height = row_tiles(self.line.count, shape)
        whole, rest = divmod(self.line.count, height)
        with self.b.code.loop(whole) as t:
            self._tile(at, t * height, height, vectors, full, left, right)
        if rest:
            first = self.b.code.const(whole * height)
            self._tile(at, first, rest, vectors, full, left, right)

    def _tile(  # noqa: PLR0913, PLR0917
        self,
        at: tuple[Expr, Expr, Expr, Expr, Expr],
        first: Expr,
        rows: int,
        vectors: Vectors,
        full: Vectors,
        left: Callable[[Expr, Expr, int, Expr, Sequence[Expr]], Expr],
        right: Callable[..., Expr],
    ) -> None:
        n, start, q, g, panel = at
        b = self.b
        _, source, result = self.channels

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with (
                b.code.loop(self.rows.taps) as r,
                b.code.loop(self.line.taps) as s,
                b.code.loop(source) as c,
            ):
                yield r, s, c

        def put(scope: Scope, i: int, j: Expr, value: Expr) -> None:
            channel = g * result + panel * full.width + j
            where = place(n, channel, (self.rows, start + q), (self.line, first + i), self.axes)
            self.of.sink.put(scope, where, value)

        compute(
            b,
            Tile(
                rows,
                vectors,
                self.of.x.type.dtype,
                reduce,
                lambda i, ks: left(q, first, i, g, ks),
                lambda j, lanes, ks: right(g, panel, j, lanes, ks, vectors.width),
                put,
            ),
        )


@dataclass(frozen=True, slots=True)
class _PackedFilters:
    """Filters in panels."""

    buffer: Memory
    base: Callable[[Expr, Expr, Expr, Expr], Expr]

    def read(
        self, g: Expr, p: Expr, j: int, lanes: int, ks: Sequence[Expr], width: int
    ) -> Expr:
        r, s, c = ks
        return self.buffer.load(self.base(g, p, r, s) + c * width + j, lanes)


def _panels(whole: int, full: Vectors, rest: Vectors | None) -> list[tuple[int, int, Vectors]]:
    """Return the kinds of panel: number of the first, how many, the columns."""
    found = [(0, whole, full)] if whole else []
    if rest is not None:
        found.append((whole, 1, rest))
    return found


def _transposed_taps(w: Stored) -> Stored:
    """Return filters with the two tap dimensions exchanged."""
    g, r, s, i, o = w.type.shape
    a, c, d, e, f = w.strides
    return Stored(TensorType((g, s, r, i, o), w.type.dtype), w.memory, (a, d, c, e, f), w.base)


def _chosen_taps(w: Stored, rows: Line, line: Line) -> Stored:
    """Return the filters' taps of a phase."""
    g, _, _, i, o = w.type.shape
    a, down, along, e, f = w.strides
    base = w.base + rows.first_tap * down + line.first_tap * along
    steps = (a, down * rows.filter_step, along * line.filter_step, e, f)
    return Stored(
        TensorType((g, rows.taps, line.taps, i, o), w.type.dtype), w.memory, steps, base
    )
