"""Convolutions with 3x3 filters by Winograd's transforms: 2.25 or 4 times fewer products.

Tiles of the images and the filters are transformed, see `toom_cook.py`; then place f of the
tiles times place f of the filters is a matrix product over the channels, one for each of the
16 or 36 places; and its results are transformed back. Nothing is prepared beforehand: a panel
of filters is transformed where it is used, which reads a quarter of the memory that transformed
filters would take, and serves trained filters as well.

Whichever of the two is smaller is transformed first, as a whole: the filters, and then the
threads divide the tiles; or the images, and then they divide the panels of filters. What they
divide is transformed in blocks that stay in a core's cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.kernels.depthwise import channel_vectors
from pockc.backends.tvm.kernels.panels import pack
from pockc.backends.tvm.lines import Line
from pockc.backends.tvm.tile import (
    Shape,
    Tile,
    Vectors,
    add_to,
    best_shape,
    column_tiles,
    compute,
    row_tiles,
    rows_cost,
    spread,
)
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.toom_cook import F2, F4, Scheme, Transform
from pockc.backends.tvm.values import Scope, Source, Stored, number
from pockc.ir.types import DType

ROWS_AT_ONCE = 56
"""Most tiles of a block: so often is a panel of filters used while the cache has it."""

COSTS = {F2: (70, 60, 50), F4: (220, 180, 160)}
"""What transforming a vector of images, results and filters takes, in multiply-adds; measured."""

WORTH = 0.7
"""The part of the time of a direct convolution from which on the transforms pay."""


@dataclass(frozen=True, slots=True)
class Room:
    """Transformed tiles, filters or results: place by place.

    Attributes:
        memory: Where they are.
        base: Where the first place begins.
        step: Distance from place to place.
    """

    memory: Memory
    base: Expr
    step: int

    def at(self, place: Expr, offset: Expr, lanes: int) -> Expr:
        """Return some neighbours at a place."""
        return self.memory.load(self.base + (place * self.step + offset), lanes)


@dataclass(frozen=True, slots=True)
class Winograd:
    """A convolution of images (N, C, H, W) with filters (3, 3, C, K).

    Attributes:
        b: The kernel.
        x: The images.
        filters: The filters, in the order in which they meet the images.
        sink: Takes the results.
        rows: How rows meet.
        line: How columns meet.
        scheme: Which transforms.
    """

    b: Builder
    x: Source
    filters: Stored
    sink: Sink
    rows: Line
    line: Line
    scheme: Scheme

    @property
    def places(self) -> int:
        """Numbers of a transformed tile."""
        return self.scheme.n**2

    @property
    def grid(self) -> tuple[int, int, int]:
        """Images, and tiles down and along each."""
        m = self.scheme.m
        return self.x.type.shape[0], -(-self.rows.count // m), -(-self.line.count // m)

    @property
    def tiles(self) -> int:
        """Number of tiles of all images."""
        return math.prod(self.grid)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.filters.type.shape[2]

    @property
    def shape(self) -> Shape:
        """The register tile."""
        return best_shape(self.b.target, self.x.type.dtype, self.filters.type.shape[3])

    @property
    def panels(self) -> tuple[int, Vectors, Vectors | None]:
        """The columns of the filters, see `column_tiles`."""
        return column_tiles(self.filters.type.shape[3], self.shape, padded=True)

    @property
    def panel_count(self) -> int:
        """Number of panels."""
        whole, _, rest = self.panels
        return whole + (rest is not None)

    @property
    def cost(self) -> float:
        """What the kernel takes: a unit is the multiplication and addition of a vector."""
        b, dtype = self.b, self.x.type.dtype
        image, result, filter = COSTS[self.scheme]
        into, out = (
            -(-n // b.lanes(dtype)) for n in (self.channels, self.filters.type.shape[3])
        )
        products = self.places * rows_cost(self.tiles, self.shape) * self.channels * out
        transforms = self.tiles * (into * image + out * result) + self.channels * out * filter
        return products + transforms

    @property
    def direct_cost(self) -> float:
        """What products of all taps take, in the same unit."""
        out = -(-self.filters.type.shape[3] // self.b.lanes(self.x.type.dtype))
        results = self.grid[0] * self.rows.count * rows_cost(self.line.count, self.shape)
        return results * self.scheme.r**2 * self.channels * out

    @property
    def work(self) -> int:
        """Products of all matrices."""
        return self.places * self.tiles * self.channels * self.filters.type.shape[3]

    def step(self, size: int) -> int:
        """Return the distance between places of some size: not all in the same cache sets."""
        line = self.b.lanes(self.x.type.dtype)
        return (-(-size // line) | 1) * line

    def emit(self) -> None:
        """Write the kernel."""
        if self.filters.type.shape[3] <= self.tiles:
            self._filters_first()
        else:
            self._images_first()

    def _filters_first(self) -> None:
        """Transform all filters, then let the threads divide blocks of tiles."""
        b, dtype = self.b, self.x.type.dtype
        width, count, tiles = self.panels[1].width, self.panel_count, self._block_tiles()
        filters = self._all_filters()
        blocks = -(-self.tiles // tiles)
        parts = b.part_count(blocks, self.work)
        image_step, result_step = self.step(tiles * self.channels), self.step(tiles * width)
        images = b.workspace(parts * self.places * image_step, dtype)
        results = b.workspace(parts * self.places * result_step, dtype)
        with b.parts(blocks, self.work) as (part, first, rounds), b.code.loop(rounds) as t:
            begin = b.code.bind((first + t) * tiles)
            some: Expr = tiles
            if self.tiles % tiles:
                some = b.code.bind(tirx.min(tiles, self.tiles - begin))
            left = Room(images, b.code.bind(part * (self.places * image_step)), image_step)
            middle = Room(results, b.code.bind(part * (self.places * result_step)), result_step)
            with b.code.loop(some) as i:
                Images(self, left).tile(b.code.bind(begin + i), i)
            with b.code.loop(count) as panel:
                right = Room(
                    filters.memory,
                    b.code.bind(panel * (self.places * filters.step)),
                    filters.step,
                )
                for start, vectors in self._choices(panel):
                    products = Products(self, vectors, tiles)
                    products.emit(left, right, middle, (b.code.const(0), self.channels))
                    with b.code.loop(some) as i:
                        products.results(b.code.bind(begin + i), i, start, middle)

    def _all_filters(self) -> Room:
        """Transform all filters, panel by panel."""
        b, width, step = self.b, self.panels[1].width, self._channel_step()
        size = self.step(self.channels * width)
        memory = b.workspace(self.panel_count * self.places * size, self.x.type.dtype)
        tasks = self.panel_count, self.channels // step
        total, work = math.prod(tasks), memory.size
        taps = self.scheme.r**2 * step * width
        with b.borrowed():
            packed = b.workspace(b.part_count(total, work) * taps, self.x.type.dtype)
            with b.parts(total, work) as (part, first, rounds), b.code.loop(rounds) as t:
                panel, block = b.unravel(b.code.bind(first + t), tasks)
                for start, vectors in self._choices(panel):
                    base = panel * (self.places * size) + block * (step * vectors.width)
                    room = Room(memory, b.code.bind(base), size)
                    panels = Filters(self, vectors, step, packed, b.code.bind(part * taps))
                    panels.emit(start, block, room)
        return Room(memory, b.code.const(0), size)

    def _images_first(self) -> None:
        """Transform all images, then let the threads divide the panels of filters."""
        b, dtype = self.b, self.x.type.dtype
        width, step = self.panels[1].width, self._channel_step()
        image_step = self.step(self.tiles * self.channels)
        images = b.workspace(self.places * image_step, dtype)
        left = Room(images, b.code.const(0), image_step)
        with b.nest((self.tiles,), b.kind(images.size)) as (tile,):
            Images(self, left).tile(tile, tile)
        parts = b.part_count(self.panel_count, self.work)
        steps = self.step(step * width), self.step(self.tiles * width)
        taps = self.scheme.r**2 * step * width
        filters, results = (b.workspace(parts * self.places * s, dtype) for s in steps)
        packed = b.workspace(parts * taps, dtype)
        with b.parts(self.panel_count, self.work) as (part, first, rounds):
            right, middle = (
                Room(memory, b.code.bind(part * (self.places * s)), s)
                for memory, s in zip((filters, results), steps, strict=True)
            )
            with b.code.loop(rounds) as t:
                for start, vectors in self._choices(b.code.bind(first + t)):
                    products = Products(self, vectors, self.tiles)
                    panels = Filters(self, vectors, step, packed, b.code.bind(part * taps))
                    if step < self.channels:
                        products.clear(middle)
                    with b.code.loop(self.channels // step) as block:
                        panels.emit(start, block, right)
                        some = (b.code.bind(block * step), step)
                        products.emit(left, right, middle, some)
                    with b.code.loop(self.tiles) as tile:
                        products.results(tile, tile, start, middle)

    def _choices(self, panel: Expr) -> Iterator[tuple[Expr, Vectors]]:
        """Yield the kinds of panel, as (first column, columns), each in its condition."""
        whole, full, rest = self.panels
        start = self.b.code.bind(panel * full.width)
        if whole:
            with self.b.code.when(None if rest is None else panel < whole):
                yield start, full
        if rest is not None:
            with self.b.code.when(tirx.EQ(panel, whole) if whole else None):
                yield start, rest

    def _block_tiles(self) -> int:
        """Return how many tiles a block has: as the cache and the threads like it."""
        b = self.b
        row = self.places * self.channels * self.x.type.dtype.nbytes
        most = max(1, min(ROWS_AT_ONCE, 3 * b.target.l2_bytes // 4 // row))
        blocks = -(-self.tiles // most)
        if b.kind(self.work) == "parallel":
            blocks = -(-blocks // b.threads) * b.threads
        return -(-self.tiles // blocks)

    def _channel_step(self) -> int:
        """Return how many channels of a panel are transformed at a time: as the cache holds."""
        row = self.places * self.panels[1].width * self.x.type.dtype.nbytes
        most = min(self.channels, max(1, self.b.target.l2_bytes // 2 // row))
        step = next(n for n in range(most, 0, -1) if self.channels % n == 0)
        return step if 4 * step > most else self.channels


@dataclass(frozen=True, slots=True)
class Filters:
    """Transforms panels of filters to (place, channel, column).

    Attributes:
        of: The convolution.
        vectors: The panel's columns.
        step: How many channels at a time.
        packed: Room for the filters of a panel beside each other.
        base: Where it begins.
    """

    of: Winograd
    vectors: Vectors
    step: int
    packed: Memory
    base: Expr

    def emit(self, start: Expr, block: Expr, to: Room) -> None:
        """Transform block number `block` of the channels, for the panel from column `start`."""
        of, width = self.of, self.vectors.width
        load = self._source(start, block)
        with of.b.code.loop(self.step) as c:
            for j, lanes in zip(self.vectors.starts, self.vectors.lanes, strict=True):
                t = Transform(of.b.code, of.x.type.dtype, lanes)
                found = t.both_ways(
                    t.evaluated, of.scheme.filter, partial(load, c, j, lanes), of.scheme.r
                )
                for place, value in enumerate(itertools.chain(*found)):
                    where = to.base + (place * to.step + c * width + j)
                    of.b.code.emit(to.memory.store(where, value, lanes))

    def _source(self, start: Expr, block: Expr) -> Callable[[Expr, int, int, int, int], Expr]:
        """Return how to read at (channel, the panel's column, lanes, r, s)."""
        x, b, width = self.of.filters, self.of.b, self.vectors.width
        down, along, into, out = x.strides
        taps, count = x.type.shape[:2], x.type.shape[2] // self.step
        blocks = Stored(
            x.type.with_shape((*taps, count, self.step, x.type.shape[3])),
            x.memory, (down, along, into * self.step, into, out), x.base,
        )  # fmt: skip
        if out == 1 and self.vectors.valid == width:
            return lambda c, j, lanes, r, s: x.memory.load(
                blocks.offset((r, s, block, c, start + j)), lanes
            )
        size = self.step * width
        with b.nest(taps) as (r, s):
            to = b.code.bind(self.base + (r * taps[1] + s) * size)
            pack(b, blocks, (r, s, block), start, self.vectors, self.packed, to)
        return lambda c, j, lanes, r, s: self.packed.load(
            self.base + ((r * taps[1] + s) * size + c * width + j), lanes
        )


@dataclass(frozen=True, slots=True)
class Images:
    """Transforms tiles of images to (place, tile, channel).

    Attributes:
        of: The convolution.
        to: Where to.
    """

    of: Winograd
    to: Room

    def tile(self, tile: Expr, i: Expr) -> None:
        """Transform a tile and put it as number `i`."""
        of, code, n = self.of, self.of.b.code, self.of.scheme.n
        x, m = of.x, of.scheme.m
        image, down, along = of.b.unravel(tile, of.grid)
        top, first = (
            code.bind(q * m + line.low) for q, line in ((down, of.rows), (along, of.line))
        )
        inside = None
        if isinstance(x, Stored) and (x.strides[1] == 1 or x.type.shape[1] == 1):
            inside = tirx.And(
                tirx.And(top >= 0, top + n <= of.rows.size),
                tirx.And(first >= 0, first + n <= of.line.size),
            )
            with code.when(inside):
                self._whole(x, (image, top, first), i)
        with code.when(None if inside is None else tirx.Not(inside)):
            self._border((image, top, first), i)

    def _whole(self, x: Stored, at: tuple[Expr, Expr, Expr], i: Expr) -> None:
        """Transform a tile that lies inside the image."""
        image, top, first = at
        for c, lanes in self._vectors():
            origin = self.of.b.code.bind(x.offset((image, c, top, first)))
            steps = x.strides[2:]
            self._transform(
                i, c, lanes,
                lambda r, s, o=origin, n=lanes: x.memory.load(o + (r * steps[0] + s * steps[1]), n),
            )  # fmt: skip

    def _border(self, at: tuple[Expr, Expr, Expr], i: Expr) -> None:
        """Transform a tile by way of a copy, with zeros around the image."""
        of, b, code, n = self.of, self.of.b, self.of.b.code, self.of.scheme.n
        image, top, first = at
        dtype = of.x.type.dtype
        for c, lanes in self._vectors():
            copy = code.local(n * n * lanes, dtype)
            with b.code.loop(n) as r, b.code.loop(n) as s:
                row, column = code.bind(top + r), code.bind(first + s)
                inside = tirx.And(
                    tirx.And(row >= 0, row < of.rows.size),
                    tirx.And(column >= 0, column < of.line.size),
                )
                to = code.bind((r * n + s) * lanes)

                def fetch(scope: Scope, j: Expr) -> None:
                    value = of.x.at(scope, (image, c + j, row, column))  # noqa: B023
                    code.emit(copy.store(to + j, value))  # noqa: B023

                with code.when(inside):
                    b.vector(lanes, lanes, fetch, b.scope())
                with code.when(tirx.Not(inside)):
                    code.emit(copy.store(to, spread(number(0, dtype), lanes), lanes))
            self._transform(
                i, c, lanes,
                lambda r, s, copy=copy, n=n, k=lanes: copy.load(code.const((r * n + s) * k), k),
            )  # fmt: skip

    def _vectors(self) -> Iterator[tuple[Expr, int]]:
        return channel_vectors(self.of.b, self.of.x)

    def _transform(
        self, i: Expr, c: Expr, lanes: int, load: Callable[[int, int], Expr]
    ) -> None:
        of, to = self.of, self.to
        t = Transform(of.b.code, of.x.type.dtype, lanes)
        found = t.both_ways(t.evaluated, of.scheme.data, load, of.scheme.n)
        origin = of.b.code.bind(to.base + (i * of.channels + c))
        for place, value in enumerate(itertools.chain(*found)):
            of.b.code.emit(to.memory.store(origin + place * to.step, value, lanes))


@dataclass(frozen=True, slots=True)
class Products:
    """The matrix products of a panel, and their way back to results.

    Attributes:
        of: The convolution.
        vectors: The panel's columns.
        tiles: Number of tiles, the rows.
    """

    of: Winograd
    vectors: Vectors
    tiles: int

    def clear(self, middle: Room) -> None:
        """Write zeros where sums will be added up."""
        b, dtype = self.of.b, middle.memory.dtype

        def zero(_: Scope, i: Expr) -> None:
            b.code.emit(middle.memory.store(middle.base + i, number(0, dtype)))

        b.vector(self.of.places * middle.step, b.lanes(dtype), zero, b.scope())

    def emit(self, left: Room, right: Room, middle: Room, channels: tuple[Expr, int]) -> None:
        """Multiply at each place; sums of a part of the channels are added to what is there."""
        code = self.of.b.code
        height = row_tiles(self.tiles, self.of.shape)
        whole, rest = divmod(self.tiles, height)
        with code.loop(self.of.places) as place:
            with code.loop(whole) as t:
                self._tile(left, right, middle, channels, (place, t * height, height))
            if rest:
                last = (place, code.const(whole * height), rest)
                self._tile(left, right, middle, channels, last)

    def _tile(
        self,
        left: Room,
        right: Room,
        middle: Room,
        channels: tuple[Expr, int],
        at: tuple[Expr, Expr, int],
    ) -> None:
        of, code = self.of, self.of.b.code
        (begin, count), (place, first, rows), width = channels, at, self.vectors.width
        images = code.bind(left.base + (place * left.step + first * of.channels + begin))
        filters = code.bind(right.base + place * right.step)
        results = code.bind(middle.base + (place * middle.step + first * width))

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(count) as c:
                yield (c,)

        def store(i: int, j: int, lanes: int, value: Expr) -> None:
            where = results + (i * width + j)
            if count < of.channels:
                add_to(code, middle.memory, where, lanes, value)
            else:
                code.emit(middle.memory.store(where, value, lanes))

        tile = Tile(
            rows,
            self.vectors,
            of.x.type.dtype,
            reduce,
            lambda i, ks: left.memory.load(images + (i * of.channels + ks[0])),
            lambda j, lanes, ks: right.memory.load(filters + (ks[0] * width + j), lanes),
            store=store,
        )
        compute(of.b, tile)

    def results(self, tile: Expr, i: Expr, start: Expr, middle: Room) -> None:
        """Transform results back and give them to the sink; what hangs over is dropped."""
        of, b = self.of, self.of.b
        image, down, along = b.unravel(tile, of.grid)
        row = b.code.bind(middle.base + i * self.vectors.width)
        m, n = of.scheme.m, of.scheme.n
        for j, lanes in zip(self.vectors.starts, self.vectors.lanes, strict=True):
            t = Transform(b.code, of.x.type.dtype, lanes)
            found = t.both_ways(
                t.interpolated,
                of.scheme.result,
                lambda r, s, j=j, k=lanes: middle.memory.load(
                    row + ((r * n + s) * middle.step + j), k
                ),
                n,
            )
            held = b.code.local(m * m * lanes, of.x.type.dtype)
            for k, value in enumerate(itertools.chain(*found)):
                b.code.emit(held.store(b.code.const(k * lanes), value, lanes))
            valid = min(lanes, self.vectors.valid - j)
            self._put((image, down, along), b.code.bind(start + j), held, (lanes, valid))

    def _put(
        self, at: tuple[Expr, Expr, Expr], k: Expr, held: Memory, lanes: tuple[int, int]
    ) -> None:
        of, b, m = self.of, self.of.b, self.of.scheme.m
        image, down, along = at
        for r in range(m):
            row = b.code.bind(down * m + r)
            with b.code.when(_limit(row, r, m, of.rows.count)):
                for s in range(m):
                    column = b.code.bind(along * m + s)

                    def put(scope: Scope, j: Expr) -> None:
                        value = held.load((r * m + s) * lanes[0] + j)  # noqa: B023
                        index = (image, k + j, row, column)  # noqa: B023
                        of.sink.put(scope, index, value)

                    with b.code.when(_limit(column, s, m, of.line.count)):
                        b.lane(lanes[1], b.code.const(0), put, b.scope())


def _limit(at: Expr, offset: int, m: int, count: int) -> Expr:
    """Return the condition for a result to exist, None if the last tile has it too."""
    return None if (-(-count // m) - 1) * m + offset < count else at < count


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
    found = min(
        (Winograd(b, x, turned, sink, rows, line, scheme) for scheme in COSTS),
        key=lambda w: w.cost,
    )
    return found if found.cost < WORTH * found.direct_cost else None


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
