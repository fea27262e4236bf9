"""Convolutions and their input gradients, as register tiles over images with channels last.

Both are one computation. Along each image dimension results lie at `q * out_step + phase`, and
result q meets, for tap t, the source's element `q * in_step + offset + t * tap_step`; an input
gradient has one phase per step of the stride, each with the taps that reach it. Rows of the
source that a task needs are copied, with zeros around them and channels last, into a band in
the cache; where nothing lies outside and channels are last already, the source is read as
it is. A 1x1 convolution is a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels import depthwise, winograd
from pockc.backends.tvm.kernels.matmul import emit_product
from pockc.backends.tvm.kernels.planes import Planes
from pockc.backends.tvm.kernels.product import Product
from pockc.backends.tvm.kernels.window import is_matmul, pair
from pockc.backends.tvm.lines import Line, forward_line, gradient_lines
from pockc.backends.tvm.pointwise import merged_space
from pockc.backends.tvm.values import Source, Stored
from pockc.ir.graph import Node
from pockc.ir.types import TensorType


@lower("conv2d")
def _conv2d(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, w = operands
    a, groups = node.attrs, node.attrs["groups"]
    _, c, r, s = w.type.shape
    lines = [
        [
            forward_line(
                n, o, k, *(pair(a, name)[d] for name in ("stride", "padding", "dilation"))
            )
        ]
        for d, (n, o, k) in enumerate(
            zip(x.type.shape[2:], node.type.shape[2:], (r, s), strict=True)
        )
    ]
    w = w if isinstance(w, Stored) else b.copy(w)
    per_group = node.type.shape[1] // groups
    if groups > 1 and c == 1 and per_group == 1:
        depthwise.convolve(b, x, _by_channel(w), lines, sink)
        return
    if is_matmul(a, (r, s)) and _as_matmul(b, x, w, sink, turned=False):
        return
    _convolve(b, x, _grouped(w, groups, swap=False), sink, lines)


@lower("conv2d_grad_input")
def _conv2d_grad_input(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    dy, w = operands
    a, groups = node.attrs, node.attrs["groups"]
    k, c, r, s = w.type.shape
    lines = [
        gradient_lines(
            n, o, t, *(pair(a, name)[d] for name in ("stride", "padding", "dilation"))
        )
        for d, (n, o, t) in enumerate(
            zip(node.type.shape[2:], dy.type.shape[2:], (r, s), strict=True)
        )
    ]
    w = w if isinstance(w, Stored) else b.copy(w)
    if groups > 1 and c == 1 and k == groups:
        depthwise.convolve(b, dy, _by_channel(w), lines, sink)
        return
    if is_matmul(a, (r, s)) and _as_matmul(b, dy, w, sink, turned=True):
        return
    _convolve(b, dy, _grouped(w, groups, swap=True), sink, lines)


def _convolve(
    b: Builder, x: Source, filters: Stored, sink: Sink, lines: Sequence[Sequence[Line]]
) -> None:
    """Write a convolution with filters (groups, R, S, from, to) by the faster method."""
    found = winograd.choose(b, x, filters, sink, lines)
    if found is None:
        Planes(b, x, filters, sink).emit(lines)
    else:
        found.emit()


def _as_matmul(b: Builder, x: Source, w: Stored, sink: Sink, *, turned: bool) -> bool:
    """Write a 1x1 convolution as one product over all pixels, if memory allows it."""
    groups = [[0, 2, 3], [1]]
    x = x if isinstance(x, Stored) else b.copy(x, x.type.with_layout((0, 2, 3, 1)))
    left = merged_space([x], x.type.shape, groups)
    merged = sink.merged(groups)
    if left is None or merged is None:
        return False
    k, c, _, _ = w.type.shape
    out, into = w.strides[0], w.strides[1]
    shape, steps = ((k, c), (out, into)) if turned else ((c, k), (into, out))
    right = Stored(TensorType(shape, w.type.dtype), w.memory, steps, w.base)
    product = Product(b, (), left[0], right, merged)
    if merged.type.order[-1] == 0 or merged.type.shape[1] == 1:
        product = product.transposed()
    emit_product(product)
    return True


def _by_channel(w: Stored) -> Stored:
    """Return depthwise filters (C, 1, R, S) as (R, S, C)."""
    c, _, r, s = w.type.shape
    steps = w.strides
    return Stored(
        TensorType((r, s, c), w.type.dtype), w.memory, (steps[2], steps[3], steps[0]), w.base
    )


def _grouped(w: Stored, groups: int, *, swap: bool) -> Stored:
    """Return filters (K, C, R, S) as (groups, R, S, from, to)."""
    k, c, r, s = w.type.shape
    per_group = k // groups
    out, into, down, along = w.strides
    if per_group == 1:
        out_inner, group_step = 0, out
    else:
        out_inner, group_step = out, out * per_group
    shape = (groups, r, s, per_group, c) if swap else (groups, r, s, c, per_group)
    inner = (out_inner, into) if swap else (into, out_inner)
    return Stored(
        TensorType(shape, w.type.dtype), w.memory, (group_step, down, along, *inner), w.base
    )
