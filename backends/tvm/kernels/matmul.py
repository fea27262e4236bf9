"""Matrix products in every transposition and batched, as register tiles over packed panels.

Transposes are strides: a product is turned so that the result's rows lie along memory. The
right operand is copied into panels of the tile's width, one panel per thread at a time, while
it is needed; where its rows are short or few rows of the left operand use it, it is read as it
is. With few results and a long reduction (the weight gradients of convolutions) the reduction
is divided between the threads instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels import columns
from pockc.backends.tvm.kernels.columns import Columns
from pockc.backends.tvm.kernels.long_product import LongProduct
from pockc.backends.tvm.kernels.panels import Panels
from pockc.backends.tvm.kernels.product import Product
from pockc.backends.tvm.pointwise import aligned_strides
from pockc.backends.tvm.sums import monoid, row_total
from pockc.backends.tvm.tile import product_shape
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Scope, Source, Stored
from pockc.ir.graph import Node
from pockc.ir.types import TensorType

SMALL_BYTES = 1 << 18
"""Sums of all parts that are no matter for memory."""


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
    emit_product(product.merged())


def emit_product(product: Product) -> None:
    """Choose the form and write it."""
    m, n, k = product.sizes
    b = product.b
    along = product.left.strides[-1] == 1 and product.right.strides[-2] == 1
    if k == 0 or (min(m, n) <= 2 and along):
        _dots(product)
    elif _form(product) == "long":
        LongProduct(product).emit()
    else:
        matrices = math.prod(product.batch)
        shape = product_shape(b, product.left.type.dtype, n, matrices, b.threads)
        (Columns if columns.suits(product) else Panels)(product, shape).emit()


def _form(product: Product) -> str:
    """Return the form of the loops. Both divide a long reduction with a small result well."""
    m, n, k = product.sizes
    usual = "long" if _is_long(product) else "panels"
    small = m * n * product.left.type.dtype.nbytes * product.b.threads <= SMALL_BYTES
    either = math.prod(product.batch) == 1 and small and k >= 2 * max(m, n)
    return product.b.choose("form", usual, ("long", "panels") if either else ())


def _is_long(product: Product) -> bool:
    """Whether to divide the reduction: operands beyond the cache, and a small result."""
    m, n, k = product.sizes
    nbytes = product.left.type.dtype.nbytes
    operands = k * (m + n) * nbytes
    return (
        math.prod(product.batch) == 1
        and operands > product.b.target.l2_bytes
        and m * n * nbytes * product.b.threads <= max(operands // 4, SMALL_BYTES)
        and k >= 8 * max(m, n)
    )


def _dots(product: Product) -> None:
    """Write one sum per result, along the reduction."""
    b, (m, n, k) = product.b, product.sizes
    work = math.prod((*product.batch, m, n, k))
    how = monoid("reduce_sum", product.left.type.dtype)
    with b.nest((*product.batch, m, n), b.kind(work)) as (*batch, i, j):

        def term(scope: Scope, _: Sequence[Expr], at: Expr) -> Expr:
            x = product.left.at(scope, (*batch, i, at))
            return x * product.right.at(scope, (*batch, at, j))

        value = row_total(b, b.scope(), how, [], (0, k), term)
        product.put(b.scope(), batch, i, j, value)
