"""A batch of matrix products: its sizes, its transpose, and where its elements go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pockc.backends.tvm.builder import Builder, Sink
from pockc.backends.tvm.pointwise import merged_space
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Scope, Stored
from pockc.ir.types import TensorType

LINE_BYTES = 64
"""A line of every cache in use."""


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
        first_row: Where the left operand's row 0 is in the sink, if it is a block of rows.
    """

    b: Builder
    batch: tuple[int, ...]
    left: Stored
    right: Stored
    sink: Sink
    turned: bool = False
    first_row: Expr = 0

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, columns and length of the reduction."""
        return self.left.type.shape[-2], self.right.type.shape[-1], self.left.type.shape[-1]

    def transposed(self) -> Product:
        """Return the product of the transposes, in reverse."""
        return replace(
            self, left=turned(self.right), right=turned(self.left), turned=not self.turned
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
        i = self.first_row + i
        place = (j, i) if self.turned else (i, j)
        self.sink.put(scope, (*batch, *place), value)

    def expect(self, scope: Scope, batch: Sequence[Expr], i: Expr, j: Expr) -> None:
        """Tell the sink that the elements of row `i` from column `j` on will come."""
        if not self.turned:
            self.sink.expect(scope, (*batch, self.first_row + i, j))


def turned(x: Stored) -> Stored:
    """Return matrices as their transposes."""
    *batch, rows, columns = x.type.shape
    *steps, down, along = x.strides
    shape = TensorType((*batch, columns, rows), x.type.dtype)
    return Stored(shape, x.memory, (*steps, along, down), x.base)
