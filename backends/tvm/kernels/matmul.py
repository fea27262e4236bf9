"""Matrix products in every transposition and batched, as register tiles over packed panels.

Transposes are strides: a product is turned so that the result's rows lie along memory. The
right operand is copied into panels of the tile's width, one panel per thread at a time, while
it is needed; where its rows are short or few rows of the left operand use it, it is read as it
is. With few results and a long reduction (the weight gradients of convolutions) the reduction
is divided between the threads instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels.reduce import monoid, row_total
from pockc.backends.tvm.pointwise import aligned_strides, merged_space
from pockc.backends.tvm.tile import (
    Shape,
    Tile,
    Vectors,
    add_to,
    best_shape,
    column_tiles,
    compute,
    row_tiles,
)
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.transpose import transposed_copy
from pockc.backends.tvm.values import Index, Scope, Source, Stored, number
from pockc.ir.graph import Node
from pockc.ir.types import TensorType

Put = Callable[[Scope, Sequence[Expr], Expr, Expr, Expr], None]
PACK_BYTES = 1024
"""Rows of the right operand as long as this are packed: their lines share few cache sets."""


@lower("matmul")
def _matmul(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, y = (o if isinstance(o, Stored) else b.copy(o) for o in operands)
    rank = node.type.rank
    m, k, n = x.type.shape[-2], x.type.shape[-1], y.type.shape[-1]
    batch = node.type.shape[:-2]
    shape_x, shape_y = (*batch, m, k), (*batch, k, n)
    left = Stored(
        TensorType(shape_x, x.type.dtype), x.memory, aligned_strides(x, shape_x), x.base
    )
    right = Stored(
        TensorType(shape_y, y.type.dtype), y.memory, aligned_strides(y, shape_y), y.base
    )
    product = Product(b, batch, left, right, sink)
    order = [d for d in sink.type.order if sink.type.shape[d] != 1]
    if (order and order[-1] == rank - 2) or (n == 1 and m > 1):
        product = product.transposed()
    product.merged().emit()


@dataclass(frozen=True, slots=True)
class Product:
    """A batch of products of matrices in memory.

    Attributes:
        b: The kernel.
        batch: The batch dimensions.
        left: Of shape (*batch, m, k).
        right: Of shape (*batch, k, n).
        sink: Takes elements at (*batch, m, n), or (*batch, n, m) if `turned`.
        turned: Whether the result is the transpose of what the sink takes.
    """

    b: Builder
    batch: tuple[int, ...]
    left: Stored
    right: Stored
    sink: Sink
    turned: bool = False

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, columns and length of the reduction."""
        return self.left.type.shape[-2], self.right.type.shape[-1], self.left.type.shape[-1]

    def transposed(self) -> Product:
        """Return the product of the transposes, in reverse."""
        return replace(
            self, left=_turned(self.right), right=_turned(self.left), turned=not self.turned
        )

    def merged(self) -> Product:
        """Return the product with the batch as rows, if the right operand is one matrix."""
        rank = len(self.batch)
        if (
            self.turned
            or math.prod(self.batch) == 1
            or any(s for s, n in zip(self.right.strides, self.batch, strict=False) if n != 1)
        ):
            return self
        groups = [[*range(rank + 1)], [rank + 1]]
        left = merged_space([self.left], self.left.type.shape, groups)
        sink = self.sink.merged(groups)
        if left is None or sink is None:
            return self
        right = Stored(
            TensorType(self.right.type.shape[rank:], self.right.type.dtype),
            self.right.memory,
            self.right.strides[rank:],
            self.right.base,
        )
        return Product(self.b, (), left[0], right, sink)

    def put(self, scope: Scope, batch: Sequence[Expr], i: Expr, j: Expr, value: Expr) -> None:
        """Give an element to the sink."""
        place = (j, i) if self.turned else (i, j)
        self.sink.put(scope, (*batch, *place), value)

    def emit(self) -> None:
        """Choose the form and write it."""
        m, n, k = self.sizes
        b = self.b
        along = self.left.strides[-1] == 1 and self.right.strides[-2] == 1
        if k == 0 or (min(m, n) <= 2 and along):
            self._dots()
        elif self._long():
            _Long(self).emit()
        else:
            _Panels(self, best_shape(b.target, self.left.type.dtype, n)).emit()

    def _long(self) -> bool:
        """Whether to divide the reduction: operands beyond the cache, and a small result."""
        m, n, k = self.sizes
        nbytes = self.left.type.dtype.nbytes
        operands = k * (m + n) * nbytes
        return (
            math.prod(self.batch) == 1
            and operands > self.b.target.l2_bytes
            and m * n * nbytes * self.b.threads <= max(operands // 4, 1 << 18)
            and k >= 8 * max(m, n)
        )

    def _dots(self) -> None:
        """Write one sum per result, along the reduction."""
        b, (m, n, k) = self.b, self.sizes
        work = math.prod((*self.batch, m, n, k))
        how = monoid("reduce_sum", self.left.type.dtype)
        with b.nest((*self.batch, m, n), b.kind(work)) as (*batch, i, j):

            def term(scope: Scope, _: Sequence[Expr], at: Expr) -> Expr:
                x = self.left.at(scope, (*batch, i, at))
                return x * self.right.at(scope, (*batch, at, j))

            value = row_total(b, b.scope(), how, [], (0, k), term)
            self.put(b.scope(), batch, i, j, value)


def _turned(x: Stored) -> Stored:
    *batch, rows, columns = x.type.shape
    *steps, down, along = x.strides
    shape = TensorType((*batch, columns, rows), x.type.dtype)
    return Stored(shape, x.memory, (*steps, along, down), x.base)


@dataclass(frozen=True, slots=True)
class _Panels:
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
        pack = self._must_pack() or self._should_pack()
        whole, full, rest = column_tiles(n, self.shape, padded=pack)
        panels = whole + (rest is not None)
        tasks = math.prod(p.batch) * panels
        threads = p.b.threads if p.b.kind(tasks * m * k * full.width) == "parallel" else 1
        even = tasks % threads == 0 or tasks >= 4 * threads
        if pack and even:
            self._panel_by_panel(panels, whole, full, rest)
        else:
            self._tile_by_tile(panels, whole, full, rest, pack=pack)

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
                    self._rows(batch, start, vectors, right, None)

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
        with b.nest((*p.batch, panels, tiles), b.kind(work)) as (*batch, panel, tile):
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
    ) -> None:
        """Write the tiles of a panel, or only number `tile` of them."""
        b, (m, _, _) = self.product.b, self.product.sizes
        height = row_tiles(m, self.shape)
        whole, rest = divmod(m, height)
        if tile is None:
            with b.code.loop(whole) as t:
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

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(p.sizes[2]) as k:
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


@dataclass(frozen=True, slots=True)
class _Long:
    """A small result of a long reduction: each part sums its share, then the parts are added.

    Within a part the reduction goes in blocks that fit the cache, and all tiles of the result
    pass over a block before the next one is read.
    """

    product: Product

    def emit(self) -> None:
        """Write the partial sums and their total."""
        p, b = self.product, self.product.b
        m, n, k = p.sizes
        dtype = p.left.type.dtype
        right = (
            p.right if p.right.strides[-1] == 1 else b.copy(p.right, TensorType((k, n), dtype))
        )
        shape = best_shape(b.target, dtype, n)
        whole, full, rest = column_tiles(n, shape, padded=False)
        work = m * n * k
        parts = b.part_count(k, work)
        partial = b.stage(TensorType((parts, m, n), dtype))
        block = max(16, min(k, b.target.l2_bytes // 2 // ((m + n) * dtype.nbytes)))
        with b.parts(k, work) as (part, first, count):
            self._clear(partial, part, m * n)
            blocks = tirx.floordiv(count + (block - 1), block)
            with b.code.loop(blocks) as at:
                begin = b.code.bind(first + at * block)
                length = b.code.bind(tirx.min(block, first + count - begin))
                with b.code.loop(whole) as j:
                    if whole:
                        self._tiles(
                            partial, part, right, (begin, length), j * full.width, full, shape
                        )
                if rest is not None:
                    start = b.code.const(whole * full.width)
                    self._tiles(partial, part, right, (begin, length), start, rest, shape)

        def total(scope: Scope, index: Index) -> None:
            value = partial.at(scope, (0, *index))
            for other in range(1, parts):
                value = value + partial.at(scope, (other, *index))
            p.put(scope, (0,) * len(p.batch), index[0], index[1], value)

        b.injective(TensorType((m, n), dtype), parts, total)

    def _clear(self, partial: Stored, part: Expr, size: int) -> None:
        b = self.product.b

        def zero(_: Scope, i: Expr) -> None:
            b.code.emit(partial.memory.store(part * size + i, number(0, partial.type.dtype)))

        b.vector(size, b.lanes(partial.type.dtype), zero, b.scope())

    def _tiles(  # noqa: PLR0913, PLR0917
        self,
        partial: Stored,
        part: Expr,
        right: Stored,
        block: tuple[Expr, Expr],
        start: Expr,
        vectors: Vectors,
        shape: Shape,
    ) -> None:
        b, (m, _, _) = self.product.b, self.product.sizes
        height = row_tiles(m, shape)
        whole, rest = divmod(m, height)
        with b.code.loop(whole) as t:
            self._tile(partial, part, right, block, (t * height, start), height, vectors)
        if rest:
            at = (b.code.const(whole * height), start)
            self._tile(partial, part, right, block, at, rest, vectors)

    def _tile(  # noqa: PLR0913, PLR0917
        self,
        partial: Stored,
        part: Expr,
        right: Stored,
        block: tuple[Expr, Expr],
        place: tuple[Expr, Expr],
        rows: int,
        vectors: Vectors,
    ) -> None:
        p, code = self.product, self.product.b.code
        begin, length = block
        lead = (0,) * len(p.batch)
        from_left = code.bind(p.left.offset((*lead, place[0], begin)))
        from_right = code.bind(right.offset((*(0,) * (right.type.rank - 2), begin, place[1])))
        to = code.bind(partial.offset((part, *place)))
        down, along = p.left.strides[-2:]
        row = partial.strides[-2]

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(length) as k:
                yield (k,)

        compute(
            p.b,
            Tile(
                rows,
                vectors,
                partial.type.dtype,
                reduce,
                lambda i, ks: p.left.memory.load(from_left + i * down + ks[0] * along),
                lambda j, lanes, ks: right.memory.load(
                    from_right + ks[0] * right.strides[-2] + j, lanes
                ),
                store=lambda i, j, lanes, value: add_to(
                    code, partial.memory, to + i * row + j, lanes, value
                ),
            ),
        )
