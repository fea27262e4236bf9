"""Products whose left operand lies by columns: blocks of it are turned into rows first.

A tile reads a few rows of the left operand along the reduction. Where memory runs down the
columns, as in every weight gradient, each step of the reduction is in another line, often of
the same set of the cache. A block of rows is copied so that memory runs along them, by all
threads; then the block is multiplied as usual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pockc.backends.tvm.kernels.panels import Panels
from pockc.backends.tvm.kernels.product import Product
from pockc.backends.tvm.tile import Shape
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.transpose import transposed_copy
from pockc.backends.tvm.values import Stored
from pockc.ir.types import TensorType

BLOCK_BYTES = 4 << 20
"""Most bytes of turned rows: a workspace that the last level of cache holds."""

LEAST_COLUMNS = 192
"""Turning an element costs about as much as multiplying it by so many columns gains."""

PIECE = 64
"""Rows that a thread turns at a time: some lines of memory side by side."""


def suits(product: Product) -> bool:
    """Return whether the left operand is worth turning."""
    m, n, k = product.sizes
    left = product.left
    return (
        math.prod(product.batch) == 1
        and left.strides[-1] != 1
        and left.strides[-2] == 1
        and n >= LEAST_COLUMNS
        and min(m, k) >= PIECE
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Turns blocks of the left operand and multiplies them."""

    product: Product
    shape: Shape

    def emit(self) -> None:
        """Write the blocks."""
        p, b = self.product, self.product.b
        m, _, k = p.sizes
        dtype = p.left.type.dtype
        step = k + b.lanes(dtype)  # rows whole pages apart would share one set of the cache
        most = max(PIECE, BLOCK_BYTES // (step * dtype.nbytes) // PIECE * PIECE)
        blocks = -(-m // most)
        rows = min(m, -(-m // (blocks * PIECE)) * PIECE)
        turned = b.stage(TensorType((rows, step), dtype))
        whole, rest = divmod(m, rows)
        with b.code.loop(whole) as at, b.borrowed():
            self._block(turned, at * rows, rows)
        if rest:
            with b.borrowed():
                self._block(turned, b.code.const(whole * rows), rest)

    def _block(self, turned: Stored, first: Expr, rows: int) -> None:
        p, b = self.product, self.product.b
        k = p.sizes[2]
        pieces, rest = divmod(rows, PIECE)
        with b.code.loop(pieces, b.kind(rows * k)) as at:
            if pieces:
                self._turn(turned, first, at * PIECE, PIECE)
        if rest:
            self._turn(turned, first, b.code.const(pieces * PIECE), rest)
        shape = TensorType((*p.batch, rows, k), turned.type.dtype)
        left = Stored(shape, turned.memory, ((0,) * len(p.batch)) + turned.strides)
        Panels(replace(p, left=left, first_row=first), self.shape).emit()

    def _turn(self, turned: Stored, first: Expr, row: Expr, rows: int) -> None:
        p, b = self.product, self.product.b
        k = p.sizes[2]
        lead = (0,) * (p.left.type.rank - 2)
        source = b.code.bind(p.left.offset((*lead, first + row, 0)))
        target = b.code.bind(turned.offset((row, 0)))
        along = p.left.strides[-1]
        transposed_copy(
            b, p.left.memory, (source, along), turned.memory, (target, turned.strides[0]),
            (k, rows),
        )  # fmt: skip
