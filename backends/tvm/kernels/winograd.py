"""Convolutions with 3x3 filters by Winograd's transforms: 2.25 or 4 times fewer products.

Tiles of the images and the filters are transformed, see `toom_cook.py`; then place f of the
tiles times place f of the filters is a matrix product over the channels, one for each of the
16 or 36 places; and its results are transformed back. Nothing is prepared beforehand: a panel
of filters is transformed where it is used, which reads a quarter of the memory that transformed
filters would take, and serves trained filters as well.

Whichever of the two is smaller is transformed first: all filters, and then the threads divide
the tiles; or some tiles of the images, and then they divide the panels of filters. What they
divide is transformed in blocks that stay in a core's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.kernels.winograd_tiles import (
    Convolution,
    Filters,
    Images,
    Products,
    Room,
)
from pockc.backends.tvm.lines import Line
from pockc.backends.tvm.tile import Vectors, rows_cost
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.toom_cook import F2, F4
from pockc.backends.tvm.values import Source, Stored
from pockc.ir.types import DType

ROWS_AT_ONCE = 56
"""Most tiles of a block: so often is a panel of filters used while the cache has it."""

TILES_AT_ONCE = 128
"""Most tiles that are transformed before the filters: enough to make those worth the while."""

COSTS = {F2: (70, 60, 50), F4: (220, 180, 160)}
"""Multiply-adds that transforming a vector of images, results, filters takes; measured."""

WORTH = 0.7
"""The part of the time of a direct convolution from which on the transforms pay."""


@dataclass(frozen=True, slots=True)
class Winograd:
    """The loops around the transforms and products.

    Attributes:
        of: The convolution.
    """

    of: Convolution

    @property
    def b(self) -> Builder:
        """The kernel."""
        return self.of.b

    @property
    def cost(self) -> float:
        """What the kernel takes: a unit is the multiplication and addition of a vector."""
        w, b, dtype = self.of, self.b, self.of.x.type.dtype
        image, result, filter = COSTS[w.scheme]
        into, out = (-(-n // b.lanes(dtype)) for n in (w.channels, w.filters.type.shape[3]))
        products = w.places * rows_cost(w.tiles, w.shape) * w.channels * out
        transforms = w.tiles * (into * image + out * result) + w.channels * out * filter
        return products + transforms

    @property
    def direct_cost(self) -> float:
        """What products of all taps take, in the same unit."""
        w = self.of
        out = -(-w.filters.type.shape[3] // w.b.lanes(w.x.type.dtype))
        results = w.grid[0] * w.rows.count * rows_cost(w.line.count, w.shape)
        return results * w.scheme.r**2 * w.channels * out

    def emit(self) -> None:
        """Write the kernel."""
        w = self.of
        if w.filters.type.shape[3] <= min(w.tiles, TILES_AT_ONCE):
            self._filters_first()
        else:
            self._images_first()

    def _filters_first(self) -> None:
        """Transform all filters, then let the threads divide blocks of tiles."""
        w, b, dtype = self.of, self.b, self.of.x.type.dtype
        width, count, tiles = w.panels[1].width, w.panel_count, self._block_tiles()
        filters = self._all_filters()
        blocks = -(-w.tiles // tiles)
        parts = b.part_count(blocks, w.work)
        image_step, result_step = w.step(tiles * w.channels), w.step(tiles * width)
        images = b.workspace(parts * w.places * image_step, dtype)
        results = b.workspace(parts * w.places * result_step, dtype)
        with b.parts(blocks, w.work) as (part, first, rounds), b.code.loop(rounds) as t:
            begin = b.code.bind((first + t) * tiles)
            some = self._some(begin, tiles)
            left = Room(images, b.code.bind(part * (w.places * image_step)), image_step)
            middle = Room(results, b.code.bind(part * (w.places * result_step)), result_step)
            with b.code.loop(some) as i:
                Images(w, left).tile(b.code.bind(begin + i), i)
            with b.code.loop(count) as panel:
                base = b.code.bind(panel * (w.places * filters.step))
                right = Room(filters.memory, base, filters.step)
                for start, vectors in self._choices(panel):
                    products = Products(w, vectors, tiles)
                    products.emit(left, right, middle, (b.code.const(0), w.channels))
                    with b.code.loop(some) as i:
                        products.results(b.code.bind(begin + i), i, start, middle)

    def _all_filters(self) -> Room:
        """Transform all filters, panel by panel."""
        w = self.of
        b, width, step = w.b, w.panels[1].width, self.channel_step()
        size = w.step(w.channels * width)
        memory = b.workspace(w.panel_count * w.places * size, w.x.type.dtype)
        tasks = w.panel_count, w.channels // step
        total, work = math.prod(tasks), memory.size
        taps = w.scheme.r**2 * step * width
        with b.borrowed():
            packed = b.workspace(b.part_count(total, work) * taps, w.x.type.dtype)
            with b.parts(total, work) as (part, first, rounds), b.code.loop(rounds) as t:
                panel, block = b.unravel(b.code.bind(first + t), tasks)
                for start, vectors in self._choices(panel):
                    base = panel * (w.places * size) + block * (step * vectors.width)
                    room = Room(memory, b.code.bind(base), size)
                    panels = Filters(w, vectors, step, packed, b.code.bind(part * taps))
                    panels.emit(start, block, room)
        return Room(memory, b.code.const(0), size)

    def _images_first(self) -> None:
        """Transform images, then let the threads divide the panels of filters; and again."""
        w, b = self.of, self.b
        chunks = -(-w.tiles // TILES_AT_ONCE)
        tiles = -(-w.tiles // chunks)
        step = w.step(tiles * w.channels)
        images = b.workspace(w.places * step, w.x.type.dtype)
        panels = _PanelRooms.of(self, tiles)
        with b.code.loop(chunks) as chunk:
            begin = b.code.bind(chunk * tiles)
            some = self._some(begin, tiles)
            left = Room(images, b.code.const(0), step)
            with b.code.loop(some, b.kind(images.size)) as i:
                Images(w, left).tile(b.code.bind(begin + i), i)
            with b.parts(w.panel_count, w.work) as (part, first, rounds):
                right, middle, packed = panels.at(part)
                with b.code.loop(rounds) as t:
                    for start, vectors in self._choices(b.code.bind(first + t)):
                        products = Products(w, vectors, tiles)
                        filters = Filters(w, vectors, panels.channels, *packed)
                        self._by_channels(products, filters, start, (left, right, middle))
                        with b.code.loop(some) as i:
                            products.results(b.code.bind(begin + i), i, start, middle)

    def _by_channels(
        self, products: Products, filters: Filters, start: Expr, rooms: tuple[Room, Room, Room]
    ) -> None:
        """Transform a panel and multiply, some channels at a time."""
        w = self.of
        code, count = w.b.code, filters.step
        left, right, middle = rooms
        if count < w.channels:
            products.clear(middle)
        with code.loop(w.channels // count) as block:
            filters.emit(start, block, right)
            products.emit(left, right, middle, (code.bind(block * count), count))

    def _some(self, begin: Expr, tiles: int) -> Expr:
        """Return how many of `tiles` tiles from `begin` on there are."""
        w = self.of
        if w.tiles % tiles == 0:
            return tiles
        return w.b.code.bind(tirx.min(tiles, w.tiles - begin))

    def _choices(self, panel: Expr) -> Iterator[tuple[Expr, Vectors]]:
        """Yield the kinds of panel, as (first column, columns), each in its condition."""
        whole, full, rest = self.of.panels
        start = self.b.code.bind(panel * full.width)
        if whole:
            with self.b.code.when(None if rest is None else panel < whole):
                yield start, full
        if rest is not None:
            with self.b.code.when(tirx.EQ(panel, whole) if whole else None):
                yield start, rest

    def _block_tiles(self) -> int:
        """Return how many tiles a block has: as the cache and the threads like it."""
        w, b = self.of, self.b
        row = w.places * w.channels * w.x.type.dtype.nbytes
        most = max(1, min(ROWS_AT_ONCE, 3 * b.target.l2_bytes // 4 // row))
        blocks = -(-w.tiles // most)
        if b.kind(w.work) == "parallel":
            blocks = -(-blocks // b.threads) * b.threads
        return -(-w.tiles // blocks)

    def channel_step(self) -> int:
        """Return how many channels of a panel are transformed at a time: as the cache holds."""
        w = self.of
        row = w.places * w.panels[1].width * w.x.type.dtype.nbytes
        most = min(w.channels, max(1, w.b.target.l2_bytes // 2 // row))
        step = next(n for n in range(most, 0, -1) if w.channels % n == 0)
        return step if 4 * step > most else w.channels


@dataclass(frozen=True, slots=True)
class _PanelRooms:
    """What a part of the work needs for one panel: filters, results, filters beside each other.

    Attributes:
        channels: How many channels of the panel at a time.
        memories: The three workspaces.
        steps: Distances from place to place of the first two.
        sizes: What a part has of each.
    """

    channels: int
    memories: tuple[Memory, ...]
    steps: tuple[int, int]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, winograd: Winograd, tiles: int) -> _PanelRooms:
        """Take workspaces for all parts."""
        w, channels = winograd.of, winograd.channel_step()
        width = w.panels[1].width
        steps = w.step(channels * width), w.step(tiles * width)
        sizes = (*(w.places * s for s in steps), w.scheme.r**2 * channels * width)
        parts = w.b.part_count(w.panel_count, w.work)
        memories = tuple(w.b.workspace(parts * size, w.x.type.dtype) for size in sizes)
        return cls(channels, memories, steps, sizes)

    def at(self, part: Expr) -> tuple[Room, Room, tuple[Memory, Expr]]:
        """Return what belongs to a part."""
        bases = [part * size for size in self.sizes]
        right, middle = (
            Room(*room) for room in zip(self.memories, bases, self.steps, strict=False)
        )
        return right, middle, (self.memories[2], bases[2])


def choose(
    b: Builder, x: Source, filters: Stored, sink: Sink, lines: Sequence[Sequence[Line]]
) -> Winograd | None:
    """Return the convolution by Winograd's transforms where that is faster, else None.

    Args:
        b: The kernel.
        x: Images (N, C, H, W).
        filters: Of shape (groups, R, S, C, K).
        sink: Takes the results.
        lines: The phases of rows and columns, of a convolution or an input gradient.
    """
    rows, line = lines[0][0], lines[1][0]
    steps = {len(lines[0]), len(lines[1]), rows.in_step, line.in_step}
    steps |= {abs(rows.tap_step), abs(line.tap_step)}
    fits = filters.type.shape[:3] == (1, 3, 3) and steps == {1} and rows.taps == line.taps == 3
    if not fits or x.type.dtype is not DType.F32:
        return None
    turned = _in_order(filters, rows, line)
    forms = {
        f"winograd{s.m}": Winograd(Convolution(b, x, turned, sink, rows, line, s))
        for s in COSTS
    }
    usual = min(forms, key=lambda name: forms[name].cost)
    worth = forms[usual].cost < WORTH * forms[usual].direct_cost
    return forms.get(b.choose("form", usual if worth else "direct", ("direct", *forms)))


def _in_order(filters: Stored, rows: Line, line: Line) -> Stored:
    """Return filters (1, R, S, from, to) as (R, S, from, to), turned if taps go backwards."""
    _, down, along, into, out = filters.strides
    base = filters.base
    if rows.tap_step < 0:
        base, down = base + (rows.taps - 1) * down, -down
    if line.tap_step < 0:
        base, along = base + (line.taps - 1) * along, -along
    type = filters.type.with_shape(filters.type.shape[1:])
    return Stored(type, filters.memory, (down, along, into, out), base)
