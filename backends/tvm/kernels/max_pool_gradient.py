"""Gradient of a max pooling: which element won each window, then what the winners are given.

Rows of windows are searched once, in vectors of channels, for the number of the tap that won;
every element of the images then asks the few windows that cover it. A task does both for some
rows of images, and so the numbers, and the images that the epilogue reads, stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.kernels.depthwise import (
    CHANNELS_LAST,
    channel_vectors,
    interior,
    meets,
    place_of,
    stretches,
)
from pockc.backends.tvm.lines import Line
from pockc.backends.tvm.tile import spread
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.values import Scope, Stored, number
from pockc.ir.types import DType, TensorType

UNROLLED_TAPS = 16
"""About so many elements of windows are compared one after the other without a loop."""


@dataclass(frozen=True, slots=True)
class Winners:
    """The search for the first maximum of each window.

    Attributes:
        b: The kernel.
        x: Images (N, C, H, W), neighbouring channels side by side.
        rows: How windows meet the images' rows.
        line: How windows meet the images' columns.
    """

    b: Builder
    x: Stored
    rows: Line
    line: Line

    @property
    def row_size(self) -> int:
        """Numbers of one row of windows: (column, channel)."""
        return self.line.count * self.x.type.shape[1]

    def stage(self, shape: Sequence[int]) -> Stored:
        """Return the winners of all windows (N, C, OH, OW), in a workspace."""
        b = self.b
        won = b.stage(TensorType(tuple(shape), DType.I32, CHANNELS_LAST))
        work = self.x.type.size * self.rows.taps * self.line.taps
        with b.nest((shape[0], shape[2]), b.kind(work)) as (n, o):
            base = b.code.bind((n * shape[2] + o) * self.row_size)
            self.emit(n, o, won.memory, base)
        return won

    def emit(self, n: Expr, o: Expr, to: Memory, base: Expr) -> None:
        """Write the winning taps `r * columns + s` of row `o` of windows to `to[base..]`."""
        width = max(1, min(4, UNROLLED_TAPS // self.line.taps))
        for start, columns in stretches(self.b, self.line.count, interior(self.line), width):
            for c, lanes in channel_vectors(self.b, self.x):
                self._tile((n, o, c, start), lanes, columns, to, base)

    def _tile(
        self,
        at: tuple[Expr, Expr, Expr, Expr],
        lanes: int,
        columns: Sequence[int | None],
        to: Memory,
        base: Expr,
    ) -> None:
        """Write some neighbouring columns; a number marks a column at the border."""
        code, rows, line = self.b.code, self.rows, self.line
        n, o, c, start = at
        channels, dtype = self.x.type.shape[1], self.x.type.dtype
        best = code.local(len(columns) * lanes, dtype)
        won = code.local(len(columns) * lanes, DType.I32)
        top = code.bind(tirx.max(0, -((o * rows.in_step + rows.offset) // rows.tap_step)))
        for i, column in enumerate(columns):
            where = code.const(i * lanes)
            code.emit(best.store(where, spread(number(-math.inf, dtype), lanes), lanes))
            # A window of nothing but -inf gives to its first element.
            first = next(s for s in range(line.taps) if _there(line, column, s))
            value = top * line.taps + first
            code.emit(won.store(where, spread(value, lanes), lanes))
        with code.loop(rows.taps) as r:
            row = code.bind(o * rows.in_step + r * rows.tap_step + rows.offset)
            guard = None if rows.inside else tirx.And(row >= 0, row < rows.size)
            with code.when(guard):
                self._compare((n, row, c, start), (r, lanes), columns, best, won)
        for i in range(len(columns)):
            where = base + (start + i) * channels + c
            code.emit(to.store(where, won.load(code.const(i * lanes), lanes), lanes))

    def _compare(
        self,
        at: tuple[Expr, Expr, Expr, Expr],
        tap: tuple[Expr, int],
        columns: Sequence[int | None],
        best: Memory,
        won: Memory,
    ) -> None:
        code, line = self.b.code, self.line
        (n, row, c, start), (r, lanes) = at, tap
        origin = code.bind(self.x.offset((n, c, row, start * line.in_step + line.offset)))
        loaded: dict[int, Expr] = {}
        for s in range(line.taps):
            this = code.bind(r * line.taps + s)
            for i, column in enumerate(columns):
                if not _there(line, column, s):
                    continue
                shift = i * line.in_step + s * line.tap_step
                if shift not in loaded:
                    where = origin + shift * self.x.strides[3]
                    loaded[shift] = code.bind(self.x.memory.load(where, lanes))
                place, value = code.const(i * lanes), loaded[shift]
                most = code.bind(best.load(place, lanes))
                better = value > most
                code.emit(best.store(place, tirx.Select(better, value, most), lanes))
                number_ = tirx.Select(better, spread(this, lanes), won.load(place, lanes))
                code.emit(won.store(place, number_, lanes))


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of a max pooling, for windows with small steps.

    Attributes:
        winners: The search.
        dy: Gradients of the results, neighbouring channels side by side.
        rows: How rows of images meet windows, phase by phase.
        lines: How columns do.
        sink: Takes the gradients of the images.
    """

    winners: Winners
    dy: Stored
    rows: Sequence[Line]
    lines: Sequence[Line]
    sink: Sink

    @property
    def b(self) -> Builder:
        """The kernel."""
        return self.winners.b

    def emit(self) -> None:
        """Write the tasks: some steps of rows of one image each."""
        b, x, size = self.b, self.winners.x, self.winners.row_size
        low, high = min(r.low for r in self.rows), max(r.high for r in self.rows)
        images, steps = x.type.shape[0], self.rows[0].count
        height = self._task_steps(images, steps)
        tasks, windows = -(-steps // height), height + high - low
        work = x.type.size * self.winners.rows.taps * self.winners.line.taps
        count = b.part_count(images * tasks, work)
        won = b.workspace(count * windows * size, DType.I32)
        with b.parts(images * tasks, work) as (part, first, rounds), b.code.loop(rounds) as t:
            n, task = b.unravel(b.code.bind(first + t), (images, tasks))
            start = b.code.bind(task * height)
            base = b.code.bind(part * (windows * size))
            with b.code.loop(windows) as i:
                o = b.code.bind(start + i + low)
                with b.code.when(tirx.And(o >= 0, o < self.dy.type.shape[2])):
                    self.winners.emit(n, o, won, b.code.bind(base + i * size))
            length = b.code.bind(tirx.min(height, steps - start)) if steps % height else height
            # Window o of the task has its numbers in row `o - start - low`.
            base = b.code.bind(base - (start + low) * size)
            with b.code.loop(length) as i:
                q = b.code.bind(start + i)
                for rows in self.rows:
                    with b.code.when(None if rows.count == steps else q < rows.count):
                        self._row(n, q, rows, won, base)

    def _task_steps(self, images: int, steps: int) -> int:
        """Return how many steps of rows a task has: as many as the cache holds, evenly."""
        b, x = self.b, self.winners.x
        row = len(self.rows) * x.type.shape[3] * x.type.shape[1] * x.type.dtype.nbytes
        most = max(
            1, min(steps, b.target.l2_bytes // (2 * row), -(-images * steps // b.threads))
        )
        return -(-steps // -(-steps // most))

    def _row(self, n: Expr, q: Expr, rows: Line, won: Memory, base: Expr) -> None:
        """Write one row of an image, all phases of columns side by side."""
        b = self.b
        width = max(1, 8 // len(self.lines))
        inner = [interior(line) for line in self.lines]
        shared = max(first for first, _ in inner), min(last for _, last in inner)
        for start, columns in stretches(b, self.lines[0].count, shared, width):
            for c, lanes in channel_vectors(b, self.winners.x):
                self._tile((n, q, c, start), lanes, columns, rows, (won, base))

    def _tile(
        self,
        at: tuple[Expr, Expr, Expr, Expr],
        lanes: int,
        columns: Sequence[int | None],
        rows: Line,
        numbers: tuple[Memory, Expr],
    ) -> None:
        b, code = self.b, self.b.code
        n, q, c, start = at
        dtype = self.dy.type.dtype
        spots = [
            (i, column, line)
            for i, column in enumerate(columns)
            for line in self.lines
            if column is None or column < line.count
        ]
        total = code.local(len(spots) * lanes, dtype)
        for k in range(len(spots)):
            zero = spread(number(0, dtype), lanes)
            code.emit(total.store(code.const(k * lanes), zero, lanes))
        with code.loop(rows.taps) as r:
            o = code.bind(q + r * rows.tap_step + rows.offset)
            guard = None if rows.inside else tirx.And(o >= 0, o < rows.size)
            tap = code.bind((r * rows.filter_step + rows.first_tap) * self.winners.line.taps)
            with code.when(guard):
                self._collect((n, o, c, start), (tap, lanes), spots, total, numbers)

        def put(scope: Scope, j: Expr, k: int) -> None:
            i, _, line = spots[k]
            where = place_of(n, c + j, (rows, q), (line, start + i))
            self.sink.put(scope, where, total.load(j + k * lanes))

        for k in range(len(spots)):
            b.lane(lanes, code.const(0), lambda scope, j, k=k: put(scope, j, k), b.scope())  # type: ignore[misc]

    def _collect(
        self,
        at: tuple[Expr, Expr, Expr, Expr],
        tap: tuple[Expr, int],
        spots: Sequence[tuple[int, int | None, Line]],
        total: Memory,
        numbers: tuple[Memory, Expr],
    ) -> None:
        """Add what one row of windows gives."""
        code, dy, channels = self.b.code, self.dy, self.dy.type.shape[1]
        (n, o, c, start), (first, lanes), (won, base) = at, tap, numbers
        origin = code.bind(dy.offset((n, c, o, start)))
        winners = code.bind(base + o * self.winners.row_size + start * channels + c)
        loaded: dict[int, tuple[Expr, Expr]] = {}
        for k, (i, column, line) in enumerate(spots):
            place = code.const(k * lanes)
            for t in range(line.taps):
                if not _there(line, column, t):
                    continue
                shift = i + line.offset + t * line.tap_step
                if shift not in loaded:
                    loaded[shift] = (
                        code.bind(won.load(winners + shift * channels, lanes)),
                        code.bind(dy.memory.load(origin + shift * dy.strides[3], lanes)),
                    )
                which, given = loaded[shift]
                mine = spread(first + (line.first_tap + t * line.filter_step), lanes)
                zero = spread(number(0, dy.type.dtype), lanes)
                more = tirx.Select(tirx.EQ(which, mine), given, zero)
                code.emit(total.store(place, total.load(place, lanes) + more, lanes))


def _there(line: Line, column: int | None, tap: int) -> bool:
    """Return whether a tap lies inside; a column that is not at the border has them all."""
    return column is None or meets(line, column, tap)
