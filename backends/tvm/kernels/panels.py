"""Products by panels of columns and tiles of rows: the usual form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.kernels.product import LINE_BYTES, Product
from pockc.backends.tvm.tile import (
    Shape,
    Tile,
    Vectors,
    column_tiles,
    compute,
    row_tiles,
)
from pockc.backends.tvm.tir import FAR_BYTES, Expr, Memory
from pockc.backends.tvm.transpose import transposed_copy
from pockc.backends.tvm.values import Scope, Stored, number

PACK_BYTES = 1024
"""Rows of the right operand as long as this are packed: their lines share few cache sets."""


@dataclass(frozen=True, slots=True)
class Panels:
    """The usual form: panels of columns, tiles of rows inside.

    A task is one panel of one matrix of the batch. Many tasks are divided between the threads;
    with few, all panels are packed first and then the tiles are divided.
    """

    product: Product
    shape: Shape

    def emit(self) -> None:
        """Choose whether to pack and how to divide."""
        p = self.product
        m, n, k = p.sizes
        pack = self._must_pack() or p.b.choose("pack", self._should_pack(), (True, False))
        whole, full, rest = column_tiles(n, self.shape, padded=pack)
        panels = whole + (rest is not None)
        tasks = math.prod(p.batch) * panels
        threads = p.b.threads if p.b.kind(tasks * m * k * full.width) == "parallel" else 1
        even = tasks % threads == 0 or tasks >= 4 * threads
        usual = "panels" if even and not self._right_stays(panels * full.width) else "tiles"
        if pack and p.b.choose("share", usual, ("panels", "tiles")) == "panels":
            self._panel_by_panel(panels, whole, full, rest)
        else:
            self._tile_by_tile(panels, whole, full, rest, pack=pack)

    def _right_stays(self, columns: int) -> bool:
        """Whether all of a right operand stays in the cache while rows of the left pass by.

        Then each row of the left operand is read once, and whole rows of results are written.
        """
        p = self.product
        return columns * p.sizes[2] * p.right.type.dtype.nbytes <= p.b.target.l2_bytes // 2

    def _must_pack(self) -> bool:
        return self.product.right.strides[-1] != 1

    def _should_pack(self) -> bool:
        p = self.product
        m, _, _ = p.sizes
        row = p.right.strides[-2] * p.right.type.dtype.nbytes
        return row >= PACK_BYTES and m > 2 * self.shape.rows

    def _panel_by_panel(
        self, panels: int, whole: int, full: Vectors, rest: Vectors | None
    ) -> None:
        p, b = self.product, self.product.b
        m, _, k = p.sizes
        tasks = math.prod(p.batch) * panels
        work = tasks * m * k * full.width
        size = k * full.width
        buffer = b.workspace(b.part_count(tasks, work) * size, p.right.type.dtype)
        with b.parts(tasks, work) as (part, first, count), b.code.loop(count) as t:
            *batch, panel = b.unravel(b.code.bind(first + t), (*p.batch, panels))
            base = part * size
            for choice, vectors in self._choices(panel, whole, full, rest):
                with b.code.when(choice):
                    start = panel * full.width
                    self._pack(batch, start, vectors, buffer, base)
                    right = _packed(buffer, base, vectors.width)
                    more = None if whole < 2 else t + 1 < count
                    self._rows(batch, start, vectors, right, None, more)

    def _tile_by_tile(
        self, panels: int, whole: int, full: Vectors, rest: Vectors | None, *, pack: bool
    ) -> None:
        p, b = self.product, self.product.b
        m, n, k = p.sizes
        total = math.prod(p.batch)
        work = total * m * n * k
        size = k * full.width
        buffer = None
        if pack:
            buffer = b.workspace(total * panels * size, p.right.type.dtype)
            with b.nest((*p.batch, panels), b.kind(total * n * k)) as (*batch, panel):
                base = b.code.bind(self._number(batch, panel, panels) * size)
                for choice, vectors in self._choices(panel, whole, full, rest):
                    with b.code.when(choice):
                        self._pack(batch, panel * full.width, vectors, buffer, base)
        height = row_tiles(m, self.shape)
        tiles = -(-m // height)
        order = "rows" if self._right_stays(panels * full.width) else "panels"
        by_rows = b.choose("order", order, ("rows", "panels")) == "rows"
        inner = (tiles, panels) if by_rows else (panels, tiles)
        with b.nest((*p.batch, *inner), b.kind(work)) as (*batch, first, second):
            tile, panel = (first, second) if by_rows else (second, first)
            for choice, vectors in self._choices(panel, whole, full, rest):
                with b.code.when(choice):
                    start = panel * full.width
                    if buffer is None:
                        right = self._direct(batch, start)
                    else:
                        base = b.code.bind(self._number(batch, panel, panels) * size)
                        right = _packed(buffer, base, vectors.width)
                    self._rows(batch, start, vectors, right, tile)

    def _number(self, batch: Sequence[Expr], panel: Expr, panels: int) -> Expr:
        number_: Expr = 0
        for i, n in zip(batch, self.product.batch, strict=True):
            number_ = number_ * n + i
        return number_ * panels + panel

    def _choices(
        self, panel: Expr, whole: int, full: Vectors, rest: Vectors | None
    ) -> list[tuple[Expr | None, Vectors]]:
        """Return the kinds of panel, each with the condition for being that."""
        if rest is None:
            return [(None, full)]
        if whole == 0:
            return [(None, rest)]
        return [(panel < whole, full), (tirx.EQ(panel, whole), rest)]

    def _direct(self, batch: Sequence[Expr], start: Expr) -> Callable[[int, int, Expr], Expr]:
        right = self.product.right
        base = self.product.b.code.bind(right.offset((*batch, 0, start)))
        return lambda j, lanes, k: right.memory.load(base + k * right.strides[-2] + j, lanes)

    def _pack(
        self, batch: Sequence[Expr], start: Expr, vectors: Vectors, buffer: Memory, base: Expr
    ) -> None:
        """Copy a panel: for each step of the reduction the columns side by side."""
        p, b = self.product, self.product.b
        pack(b, p.right, batch, start, vectors, buffer, base)

    def _rows(
        self,
        batch: Sequence[Expr],
        start: Expr,
        vectors: Vectors,
        right: Callable[[int, int, Expr], Expr],
        tile: Expr | None,
        more: Expr | None = None,
    ) -> None:
        """Write the tiles of a panel, or only number `tile` of them.

        `more` says whether another panel follows: it comes nearer as the tiles go on.
        """
        b, (m, _, _) = self.product.b, self.product.sizes
        height = row_tiles(m, self.shape)
        whole, rest = divmod(m, height)
        if tile is None:
            with b.code.loop(whole) as t:
                if more is not None:
                    with b.code.when(more):
                        self._approach(batch, start + vectors.width, t, whole)
                self._tile(batch, t * height, height, start, vectors, right)
            if rest:
                first = b.code.const(whole * height)
                self._tile(batch, first, rest, start, vectors, right)
            return
        with b.code.when(tile < whole if rest else None):
            self._tile(batch, tile * height, height, start, vectors, right)
        if rest:
            with b.code.when(tirx.EQ(tile, whole)):
                first = b.code.const(whole * height)
                self._tile(batch, first, rest, start, vectors, right)

    def _approach(self, batch: Sequence[Expr], start: Expr, step: Expr, steps: int) -> None:
        """Ask for one part in `steps` of the lines of the panel from column `start` on."""
        code, right = self.product.b.code, self.product.right
        line = LINE_BYTES // right.type.dtype.nbytes
        k, width = self.product.sizes[2], self.shape.vectors * self.shape.lanes
        by_columns = right.strides[-1] != 1
        per_row = -(-(k if by_columns else width) // line)
        share = -(-per_row * (width if by_columns else k) // steps)
        with code.loop(share) as at:
            count = code.bind(step * share + at)
            row = code.bind(tirx.floordiv(count, per_row))
            place = code.bind(tirx.floormod(count, per_row) * line)
            index = (place, start + row) if by_columns else (row, start + place)
            code.emit(right.memory.prefetch(code.bind(right.offset((*batch, *index)))))

    def _tile(
        self,
        batch: Sequence[Expr],
        first: Expr,
        rows: int,
        start: Expr,
        vectors: Vectors,
        right: Callable[[int, int, Expr], Expr],
    ) -> None:
        p, code = self.product, self.product.b.code
        left = p.left
        base = code.bind(left.offset((*batch, first, 0)))
        down, along = left.strides[-2:]

        ahead = self._next_rows(batch, first, rows)
        for i in range(rows):
            for j in vectors.starts:
                p.expect(p.b.scope(), batch, first + i, start + j)

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(p.sizes[2]) as k:
                if ahead is not None:
                    code.emit(left.memory.prefetch(ahead + k * rows))
                yield (k,)

        compute(
            p.b,
            Tile(
                rows,
                vectors,
                left.type.dtype,
                reduce,
                lambda i, ks: left.memory.load(base + i * down + ks[0] * along),
                lambda j, lanes, ks: right(j, lanes, ks[0]),
                lambda scope, i, j, value: p.put(scope, batch, first + i, start + j, value),
            ),
        )

    def _next_rows(self, batch: Sequence[Expr], first: Expr, rows: int) -> Expr | None:
        """Return where the rows of the next tile begin, if they are worth asking for.

        They lie one after the other, and a step of the reduction takes as many numbers as there
        are rows; read row by row, each would be a stream of its own, too short for hardware to
        see. None if the operand is in the cache anyway, or lies otherwise.
        """
        left = self.product.left
        down, along = left.strides[-2:]
        if along != 1 or down != left.type.shape[-1]:
            return None
        if not self.product.b.choose("prefetch", left.type.nbytes >= FAR_BYTES, (True, False)):
            return None
        return self.product.b.code.bind(left.offset((*batch, first + rows, 0)))


def _packed(buffer: Memory, base: Expr, width: int) -> Callable[[int, int, Expr], Expr]:
    return lambda j, lanes, k: buffer.load(base + k * width + j, lanes)


def pack(  # noqa: PLR0913, PLR0917  from where, what, to where
    b: Builder,
    x: Stored,
    batch: Sequence[Expr],
    start: Expr,
    vectors: Vectors,
    buffer: Memory,
    base: Expr,
) -> None:
    """Copy columns `start`.. of a matrix (*batch, k, n) to `buffer[base + k * width + column]`.

    Columns beyond the valid ones become zero.
    """
    code, k = b.code, x.type.shape[-2]
    width, valid = vectors.width, vectors.valid
    if x.strides[-1] != 1 and x.strides[-2] == 1 and valid >= b.lanes(x.type.dtype):
        origin = code.bind(x.offset((*batch, 0, start)))
        transposed_copy(b, x.memory, (origin, x.strides[-1]), buffer, (base, width), (valid, k))
    else:
        with code.loop(k) as at:

            def move(scope: Scope, j: Expr) -> None:
                value = x.at(scope, (*batch, at, start + j))
                code.emit(buffer.store(base + at * width + j, value))

            for j, lanes in zip(vectors.starts, vectors.lanes, strict=True):
                b.lane(min(lanes, valid - j), code.const(j), move, b.scope())
    if width > valid:
        with code.loop(k) as at:

            def clear(_: Scope, j: Expr) -> None:
                code.emit(buffer.store(base + at * width + j, number(0, x.type.dtype)))

            b.lane(width - valid, code.const(valid), clear, b.scope())
