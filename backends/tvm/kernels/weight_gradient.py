"""Gradients of convolution filters: sums over all pixels, as register tiles of channels.

Rows of a tile are source channels, columns are result channels, the reduction runs over the
pixels that a tap meets; what lies outside the images is left out of its bounds, so nothing is
padded. With small filters each part of the pixels has sums of its own; with large ones the
tiles themselves are divided between the threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels import depthwise
from pockc.backends.tvm.kernels.depthwise import channels_last
from pockc.backends.tvm.kernels.long_product import LongProduct
from pockc.backends.tvm.kernels.matmul import emit_product
from pockc.backends.tvm.kernels.product import Product, turned
from pockc.backends.tvm.kernels.window import is_matmul, pair
from pockc.backends.tvm.lines import Line, forward_line
from pockc.backends.tvm.pointwise import merged_space
from pockc.backends.tvm.tile import (
    Tile,
    Vectors,
    add_to,
    best_shape,
    column_tiles,
    compute,
    near,
    row_tiles,
    task_rows,
)
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, Scope, Source, Stored, number
from pockc.ir.graph import Node
from pockc.ir.types import TensorType

PARTIAL_BYTES = 1 << 21
"""Most memory for the sums of all parts."""


@lower("conv2d_grad_weight")
def _conv2d_grad_weight(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, dy = operands
    a = node.attrs
    k, c, r, s = node.type.shape
    lines = [
        forward_line(n, o, t, *(pair(a, name)[d] for name in ("stride", "padding", "dilation")))
        for d, (n, o, t) in enumerate(
            zip(x.type.shape[2:], dy.type.shape[2:], (r, s), strict=True)
        )
    ]
    if a["groups"] > 1 and c == 1 and k == a["groups"]:
        depthwise.weight_gradient(b, x, dy, lines, sink)
        return
    images, given = channels_last(b, x), channels_last(b, dy)
    if is_matmul(a, (r, s)) and _as_matmul(b, images, given, sink):
        return
    _Gradient(b, images, given, lines[0], lines[1], a["groups"], sink).emit()


def _as_matmul(b: Builder, x: Stored, dy: Stored, sink: Sink) -> bool:
    """Write the gradient of 1x1 filters as one product over all pixels, if memory allows it."""
    pixels = [[0, 2, 3], [1]]
    source = merged_space([x], x.type.shape, pixels)
    result = merged_space([dy], dy.type.shape, pixels)
    merged = sink.merged([[0], [1, 2, 3]])
    if source is None or result is None or merged is None:
        return False
    product = Product(b, (), turned(result[0]), source[0], merged)
    m, n, k = product.sizes
    if m * n * x.type.dtype.nbytes * b.threads > PARTIAL_BYTES:
        return False
    # The columns are read by whole lines of the cache, the rows number by number.
    product = product if n > m else product.transposed()
    usual = "long" if k >= max(m, n) else "panels"
    if b.choose("form", usual, ("long", "panels")) == "long":
        LongProduct(product).emit()
    else:
        emit_product(product)
    return True


@dataclass(frozen=True, slots=True)
class _Gradient:
    """The loops of a weight gradient."""

    b: Builder
    x: Stored
    dy: Stored
    rows: Line
    line: Line
    groups: int
    sink: Sink

    @property
    def channels(self) -> tuple[int, int]:
        """Channels per group of the source and of the result."""
        return self.x.type.shape[1] // self.groups, self.dy.type.shape[1] // self.groups

    def emit(self) -> None:
        """Choose the form and write it."""
        b = self.b
        source, result = self.channels
        size = self.groups * self.rows.taps * self.line.taps * source * result
        nbytes = size * self.x.type.dtype.nbytes
        work = self.dy.type.size * source * self.rows.taps * self.line.taps
        images = self.x.type.shape[0]
        row_bytes = 4 * (
            self.x.type.shape[1] * self.x.type.shape[3] * self.rows.in_step
            + self.dy.type.shape[1] * self.dy.type.shape[3]
        )
        height = max(1, min(self.rows.count, b.target.l2_bytes // 2 // row_bytes))
        height = task_rows(images, self.rows.count, height, b.part_count(b.threads, work))
        height = b.choose("block", height, near(height, self.rows.count))
        tasks = images * -(-self.rows.count // height)
        parts = b.part_count(tasks, work)
        usual = "parts" if nbytes * parts <= PARTIAL_BYTES else "tiles"
        if b.choose("form", usual, ("parts", "tiles") if usual == "parts" else ()) == "parts":
            self._in_parts(parts, height, work)
        else:
            self._by_tile(work)

    def _in_parts(self, parts: int, height: int, work: int) -> None:
        """Sum blocks of rows into sums of each part, then add the parts."""
        b, dtype = self.b, self.x.type.dtype
        source, result = self.channels
        shape = (self.groups, self.rows.taps, self.line.taps, source, result)
        partial = b.stage(TensorType((parts, *shape), dtype))
        images = self.x.type.shape[0]
        tasks = -(-self.rows.count // height)
        with b.parts(images * tasks, work) as (part, first, count):
            self._clear(partial, part)
            with b.code.loop(count) as t:
                n, task = b.unravel(b.code.bind(first + t), (images, tasks))
                begin = b.code.bind(task * height)
                end = b.code.bind(tirx.min(begin + height, self.rows.count))
                self._tiles((n, 1, begin, end), partial, part)

        def total(scope: Scope, index: Index) -> None:
            value = partial.at(scope, (0, *index))
            for other in range(1, parts):
                value = value + partial.at(scope, (other, *index))
            g, r, s, i, o = index
            self.sink.put(scope, (g * result + o, i, r, s), value)

        b.injective(TensorType(shape, dtype), parts, total)

    def _clear(self, partial: Stored, part: Expr) -> None:
        b, size = self.b, math.prod(partial.type.shape[1:])

        def zero(_: Scope, i: Expr) -> None:
            b.code.emit(partial.memory.store(part * size + i, number(0, partial.type.dtype)))

        b.vector(size, b.lanes(partial.type.dtype), zero, b.scope())

    def _tiles(self, block: tuple[Expr, int, Expr, Expr], partial: Stored, part: Expr) -> None:
        """Write all tiles of a block of rows."""
        b = self.b
        for rows, tiles, first_row, columns, panels, first_panel in self._kinds():
            extents = (self.groups, self.rows.taps, self.line.taps, tiles, panels)
            with b.nest(extents) as (g, r, s, i, j):
                at = (g, r, s, i * rows + first_row, j * columns.width + first_panel)
                self._tile(block, at, rows, columns, partial, part)

    def _by_tile(self, work: int) -> None:
        """Sum each tile over everything, tiles in parallel."""
        b = self.b
        images = self.x.type.shape[0]
        block = (b.code.const(0), images, b.code.const(0), b.code.const(self.rows.count))
        for rows, tiles, first_row, columns, panels, first_panel in self._kinds():
            extents = (self.groups, self.rows.taps, self.line.taps, tiles, panels)
            with b.nest(extents, b.kind(work)) as (g, r, s, i, j):
                at = (g, r, s, i * rows + first_row, j * columns.width + first_panel)
                self._tile(block, at, rows, columns, None, None)

    def _kinds(self) -> list[tuple[int, int, int, Vectors, int, int]]:
        """Return the kinds of tile: rows, how many and from where; columns likewise."""
        source, result = self.channels
        shape = best_shape(self.b, self.x.type.dtype, result)
        height = row_tiles(source, shape)
        whole, rest = divmod(source, height)
        panels, full, last = column_tiles(result, shape, padded=False)
        down = [(height, whole, 0)] + ([(rest, 1, whole * height)] if rest else [])
        across = [(full, panels, 0)] if panels else []
        across += [(last, 1, panels * full.width)] if last is not None else []
        return [(*d, *a) for d in down for a in across]

    def _tile(
        self,
        block: tuple[Expr, int, Expr, Expr],
        at: tuple[Expr, Expr, Expr, Expr, Expr],
        rows: int,
        columns: Vectors,
        partial: Stored | None,
        part: Expr | None,
    ) -> None:
        b, code = self.b, self.b.code
        g, r, s, i0, j0 = at
        source, result = self.channels
        n0, images, begin, end = block
        top, bottom = self._bounds(self.rows, r)
        left, right = self._bounds(self.line, s)
        top, bottom = code.bind(tirx.max(top, begin)), code.bind(tirx.min(bottom, end))
        left, right = code.bind(left), code.bind(right)
        x, dy = self.x, self.dy

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(images) as n, code.loop(bottom - top) as h:
                image = n0 + n if images > 1 else n0
                row = top + h
                source_row = row * self.rows.in_step + r * self.rows.tap_step + self.rows.offset
                column = left * self.line.in_step + s * self.line.tap_step + self.line.offset
                xs = code.bind(x.offset((image, g * source + i0, source_row, column)))
                ys = code.bind(dy.offset((image, g * result + j0, row, left)))
                with code.loop(right - left) as w:
                    yield xs + w * (self.line.in_step * x.strides[3]), ys + w * dy.strides[3]

        def put(scope: Scope, i: int, j: Expr, value: Expr) -> None:
            self.sink.put(scope, (g * result + j0 + j, i0 + i, r, s), value)

        store = None
        if partial is not None:
            to = code.bind(partial.offset((part, g, r, s, i0, j0)))

            def store(i: int, j: int, lanes: int, value: Expr) -> None:
                add_to(code, partial.memory, to + i * partial.strides[4] + j, lanes, value)

        compute(
            b,
            Tile(
                rows,
                columns,
                x.type.dtype,
                reduce,
                lambda i, ks: x.memory.load(ks[0] + i * x.strides[1]),
                lambda j, lanes, ks: dy.memory.load(ks[1] + j, lanes),
                put,
                store,
            ),
        )

    def _bounds(self, line: Line, tap: Expr) -> tuple[Expr, Expr]:
        """Return the results (first, last + 1) for which a tap lies inside the source."""
        if line.inside:
            return self.b.code.const(0), self.b.code.const(line.count)
        shift = tap * line.tap_step + line.offset
        step = line.in_step
        first = tirx.max(0, tirx.floordiv(step - 1 - shift, step))
        last = tirx.min(line.count, tirx.floordiv(line.size - 1 - shift, step) + 1)
        return first, tirx.max(first, last)
