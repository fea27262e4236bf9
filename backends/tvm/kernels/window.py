"""Results that each gather a small number of elements: poolings and their gradients.

The lanes are neighbouring results in memory. Every result walks over its window; what lies
outside the images is guarded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels.depthwise import channels_last
from pockc.backends.tvm.kernels.max_pool_gradient import Gradient, Winners
from pockc.backends.tvm.lines import forward_line, gradient_lines
from pockc.backends.tvm.sums import Monoid, loops, monoid
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, NotVectorizableError, Scope, Source, number
from pockc.ir.attrs import Attrs
from pockc.ir.graph import Node
from pockc.ir.types import DType

UNROLLED_PHASES = 16
"""Max poolings with larger steps are not unrolled: their gradient's code would be too long."""

Term = Callable[[Scope, Index, Sequence[Expr]], Expr]
Finish = Callable[[Index, Expr], Expr]


@dataclass(frozen=True, slots=True)
class Window:
    """What each result gathers.

    Attributes:
        extents: How many elements, per dimension of the window.
        how: How to combine them.
        term: Gives an element from the result's index and the place in the window.
        finish: Makes the result of the combined elements.
    """

    extents: tuple[int, ...]
    how: Monoid
    term: Term
    finish: Finish | None = None


def gather(b: Builder, sink: Sink, window: Window) -> None:
    """Write the loops over results and windows."""
    type = sink.type
    order = [d for d in type.order if type.shape[d] != 1]
    inner = order[-1] if order else None
    outer = order[:-1]
    lanes = b.lanes(type.dtype)
    n = 1 if inner is None else type.shape[inner]
    work = type.size * math.prod(window.extents)
    with b.nest([type.shape[d] for d in outer], b.kind(work)) as found:

        def place(i: Expr) -> Index:
            index: list[Expr] = [0] * type.rank
            for d, at in zip(outer, found, strict=True):
                index[d] = at
            if inner is not None:
                index[inner] = i
            return tuple(index)

        start = b.code.mark()
        try:
            whole = n // lanes
            with b.code.loop(whole) as block:
                if whole:
                    _block(b, sink, window, place, block * lanes, lanes)
            if n % lanes:
                _block(b, sink, window, place, b.code.const(whole * lanes), n % lanes)
        except NotVectorizableError:
            b.code.rewind(start)
            with b.code.loop(n) as i:
                _block(b, sink, window, place, i, 1)


def _block(
    b: Builder,
    sink: Sink,
    window: Window,
    place: Callable[[Expr], Index],
    first: Expr,
    lanes: int,
) -> None:
    code, how = b.code, window.how
    total = code.local(lanes, how.dtype)
    zero = code.const(0)

    def clear(_: Scope, i: Expr) -> None:
        code.emit(total.store(i, how.neutral))

    b.lane(lanes, zero, clear, b.scope())
    with loops(b, [(0, n) for n in window.extents]) as ks:

        def add(scope: Scope, i: Expr) -> None:
            value = window.term(scope, place(first + i), ks)
            code.emit(total.store(i, how.combine(total.load(i), value)))

        b.lane(lanes, zero, add, b.scope())

    def put(scope: Scope, i: Expr) -> None:
        index = place(first + i)
        value = code.bind(total.load(i))
        value = value if window.finish is None else window.finish(index, value)
        sink.put(scope, index, value)

    b.lane(lanes, zero, put, b.scope())


def inside(scope: Scope, *tests: Expr) -> Expr | None:
    """Return the guard of several conditions; those that Python can decide cost nothing."""
    guard: Expr | None = None
    for test in tests:
        guard = scope.guarded(test if hasattr(test, "ty") else tirx.const(test, "bool"), guard)
    return guard


def pair(attrs: Attrs, name: str) -> tuple[int, int]:
    """Return an attribute of height and width; a dilation that is not there is 1."""
    if name == "dilation" and name not in attrs:
        return 1, 1
    h, w = attrs[name]
    return int(h), int(w)


def chosen(guard: Expr | None, value: Expr, other: Expr) -> Expr:
    """Return a value where the guard holds, else another."""
    return value if guard is None else tirx.if_then_else(guard, value, other)


@lower("max_pool2d")
def _max_pool2d(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x = operands[0]
    how = monoid("reduce_max", x.type.dtype)

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place, guard = _source_place(scope, node.attrs, x.type.shape, index, ks)
        return chosen(guard, x.at(scope, place, guard), how.neutral)

    gather(b, sink, Window(pair(node.attrs, "kernel"), how, term))


def _source_place(
    scope: Scope, attrs: Attrs, shape: Sequence[int], index: Index, ks: Sequence[Expr]
) -> tuple[Index, Expr | None]:
    """Return which element of the images the tap `ks` of window `index` meets, and if any."""
    place: list[Expr] = [index[0], index[1]]
    tests: list[Expr] = []
    names = [pair(attrs, name) for name in ("stride", "padding", "dilation")]
    for d, (o, k) in enumerate(zip(index[2:], ks, strict=True)):
        stride, pad, dilation = (p[d] for p in names)
        i = o * stride + k * dilation - pad
        place.append(i)
        tests += [i >= 0] if pad else []
        tests.append(i < shape[2 + d])
    return tuple(place), inside(scope, *tests)


@lower("avg_pool2d")
def _avg_pool2d(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x = operands[0]

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place, guard = _source_place(scope, node.attrs, x.type.shape, index, ks)
        return x.at(scope, place, guard)

    def finish(index: Index, total: Expr) -> Expr:
        return total * _share(node.attrs, x.type.shape, index, x.type.dtype)

    how = monoid("reduce_sum", x.type.dtype)
    gather(b, sink, Window(pair(node.attrs, "kernel"), how, term, finish))


def _share(attrs: Attrs, shape: Sequence[int], index: Index, dtype: DType) -> Expr:
    """Return one over the number of elements that a window counts."""
    count: Expr = number(1, dtype)
    kernel, stride, pad = (pair(attrs, n) for n in ("kernel", "stride", "padding"))
    for d, o in enumerate(index[2:]):
        n = shape[2 + d]
        start = o * stride[d] - pad[d]
        # A window may hang over beyond the padding; that part never counts.
        stop = tirx.min(start + kernel[d], n + pad[d])
        if not attrs["count_include_pad"]:
            start, stop = tirx.max(start, 0), tirx.min(stop, n)
        count = count * tirx.Cast(str(count.ty), stop - start)
    return number(1, dtype) / count


@lower("avg_pool2d_grad")
def _avg_pool2d_grad(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Every element of the images sums the shares of the windows that cover it."""
    dy = operands[0]
    attrs, shape = node.attrs, node.type.shape

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place, _, guard = _covering(scope, attrs, dy.type.shape, index, ks)
        share = _share(attrs, shape, place, dy.type.dtype)
        return chosen(guard, dy.at(scope, place, guard) * share, number(0, dy.type.dtype))

    gather(b, sink, Window(_most_covering(attrs), monoid("reduce_sum", dy.type.dtype), term))


def _most_covering(attrs: Attrs) -> tuple[int, ...]:
    """Return how many windows can cover an element, along each dimension."""
    dims = zip(*(pair(attrs, name) for name in ("kernel", "stride", "dilation")), strict=True)
    return tuple(-(-((k - 1) * dilation + 1) // step) for k, step, dilation in dims)


def _covering(
    scope: Scope, attrs: Attrs, shape: Sequence[int], index: Index, ks: Sequence[Expr]
) -> tuple[Index, list[Expr], Expr | None]:
    """Return the window that is number `ks` of those around an element, if there is one.

    Args:
        scope: The block.
        attrs: The pooling's.
        shape: Of its results.
        index: The element of the images.
        ks: Number of the window along each dimension, backwards from the last.

    Returns:
        The index of the window, which of its taps meets the element, and the guard.
    """
    place: list[Expr] = [index[0], index[1]]
    taps: list[Expr] = []
    tests: list[Expr] = []
    names = [pair(attrs, name) for name in ("kernel", "stride", "padding", "dilation")]
    for d, (i, t) in enumerate(zip(index[2:], ks, strict=True)):
        kernel, stride, pad, dilation = (p[d] for p in names)
        o = tirx.floordiv(i + pad, stride) - t if stride > 1 else i + pad - t
        from_start = i + pad - o * stride
        place.append(o)
        taps.append(tirx.floordiv(from_start, dilation) if dilation > 1 else from_start)
        tests += [o >= 0, o < shape[2 + d], from_start <= (kernel - 1) * dilation]
        tests += [tirx.EQ(tirx.floormod(from_start, dilation), 0)] if dilation > 1 else []
    return tuple(place), taps, inside(scope, *tests)


@lower("max_pool2d_grad")
def _max_pool2d_grad(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Windows with large steps are asked element by element; see `max_pool_gradient`."""
    x, dy = (channels_last(b, o) for o in operands)
    names = [pair(node.attrs, n) for n in ("kernel", "stride", "padding", "dilation")]
    sides = [
        (n, o, *(p[d] for p in names))
        for d, (n, o) in enumerate(zip(x.type.shape[2:], dy.type.shape[2:], strict=True))
    ]
    winners = Winners(b, x, *(forward_line(*side) for side in sides))
    phases = [gradient_lines(*side) for side in sides]
    if len(phases[0]) * len(phases[1]) <= UNROLLED_PHASES:
        Gradient(winners, dy, phases[0], phases[1], sink).emit()
        return
    won = winners.stage(dy.type.shape)
    zero = number(0, dy.type.dtype)

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place, (r, s), guard = _covering(scope, node.attrs, dy.type.shape, index, ks)
        mine = tirx.EQ(won.at(scope, place, guard), r * names[0][1] + s)
        return chosen(guard, tirx.Select(mine, dy.at(scope, place, guard), zero), zero)

    gather(
        b, sink, Window(_most_covering(node.attrs), monoid("reduce_sum", dy.type.dtype), term)
    )


def is_matmul(attrs: Attrs, kernel: tuple[int, int]) -> bool:
    """Return whether a convolution, or a gradient of one, is a product over all pixels."""
    plain = all(pair(attrs, name) == (1, 1) for name in ("stride", "dilation"))
    no_padding = pair(attrs, "padding") == (0, 0)
    return plain and kernel == (1, 1) and no_padding and attrs["groups"] == 1
