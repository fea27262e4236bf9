"""Products with a small result and a long reduction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.kernels.product import Product
from pockc.backends.tvm.tile import (
    Shape,
    Tile,
    Vectors,
    add_to,
    column_tiles,
    compute,
    near,
    product_shape,
    row_tiles,
)
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, Scope, Stored, number
from pockc.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class LongProduct:
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
        shape = product_shape(b, dtype, n, 1, 1)  # each part computes all of the result
        whole, full, rest = column_tiles(n, shape, padded=False)
        work = m * n * k
        parts = b.part_count(k, work)
        partial = b.stage(TensorType((parts, m, n), dtype))
        # A fraction of the cache: the next block is on its way to it, and so are the sums.
        block = max(16, min(k, b.target.l2_bytes // 8 // ((m + n) * dtype.nbytes)))
        block = b.choose("block", block, near(block, k))
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

        # Asking costs a tenth of what waiting for a block does; below this, nobody waits.
        far = p.left.type.nbytes + right.type.nbytes >= 4 * p.b.target.l2_bytes
        far = p.b.choose("prefetch", far, (True, False))

        @contextmanager
        def reduce() -> Iterator[tuple[Expr, ...]]:
            with code.loop(length) as k:
                if far:  # the same place of the next block, which is next in the cache
                    after = k + length
                    code.emit(p.left.memory.prefetch(from_left + after * along))
                    for j in vectors.starts:
                        place = from_right + after * right.strides[-2] + j
                        code.emit(right.memory.prefetch(place))
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
