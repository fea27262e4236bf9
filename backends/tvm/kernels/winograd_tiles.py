"""What Winograd's convolutions are made of: transforms of filters, images, results; products.

See `winograd.py`. Tiles of the images overlap by the taps but one; what hangs over the edge is
read as zeros and dropped from the results.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
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
    spread,
)
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.toom_cook import Scheme, Transform
from pockc.backends.tvm.values import Scope, Source, Stored, number


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


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of images (N, C, H, W) with filters (R, R, C, K), tile by tile.

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
        return best_shape(self.b, self.x.type.dtype, self.filters.type.shape[3])

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
    def work(self) -> int:
        """Products of all matrices."""
        return self.places * self.tiles * self.channels * self.filters.type.shape[3]

    def step(self, size: int) -> int:
        """Return the distance between places of some size: not all in the same cache sets."""
        line = self.b.lanes(self.x.type.dtype)
        return (-(-size // line) | 1) * line


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

    of: Convolution
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

    of: Convolution
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
        down, along = x.strides[2:]
        for c, lanes in self._vectors():
            origin = self.of.b.code.bind(x.offset((image, c, top, first)))

            def load(r: int, s: int, origin: Expr = origin, lanes: int = lanes) -> Expr:
                return x.memory.load(origin + (r * down + s * along), lanes)

            self._transform(i, c, lanes, load)

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

            def load(r: int, s: int, copy: Memory = copy, lanes: int = lanes) -> Expr:
                return copy.load(code.const((r * n + s) * lanes), lanes)

            self._transform(i, c, lanes, load)

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

    of: Convolution
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

            def load(r: int, s: int, j: int = j, lanes: int = lanes) -> Expr:
                return middle.memory.load(row + ((r * n + s) * middle.step + j), lanes)

            found = t.both_ways(t.interpolated, of.scheme.result, load, n)
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
