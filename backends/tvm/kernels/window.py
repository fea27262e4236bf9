"""Results that each gather a small number of elements: poolings, and any convolution, slowly.

The lanes are neighbouring results in memory. Every result walks over its window; what lies
outside the images is guarded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.sums import Monoid, loops, monoid
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, NotVectorizableError, Scope, Source, number
from pockc.ir.attrs import Attrs
from pockc.ir.graph import Node
from pockc.ir.types import DType

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
    kernel, stride, pad = (pair(attrs, n) for n in ("kernel", "stride", "padding"))

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place: list[Expr] = [index[0], index[1]]
        tests: list[Expr] = []
        for d, (i, t) in enumerate(zip(index[2:], ks, strict=True)):
            o = tirx.floordiv(i + pad[d], stride[d]) - t if stride[d] > 1 else i + pad[d] - t
            place.append(o)
            tests += [o >= 0, o < dy.type.shape[2 + d], i + pad[d] - o * stride[d] < kernel[d]]
        guard = inside(scope, *tests)
        share = _share(attrs, shape, tuple(place), dy.type.dtype)
        return chosen(
            guard, dy.at(scope, tuple(place), guard) * share, number(0, dy.type.dtype)
        )

    extents = (-(-kernel[0] // stride[0]), -(-kernel[1] // stride[1]))
    gather(b, sink, Window(extents, monoid("reduce_sum", dy.type.dtype), term))


@lower("max_pool2d_grad")
def _max_pool2d_grad(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    """Every element asks each window that covers it whether it is its first maximum.

    It is if no earlier element of the window is as large and no later one is larger.
    """
    x, dy = operands
    attrs, dtype = node.attrs, x.type.dtype
    kernel, stride, pad, dilation = (
        pair(attrs, n) for n in ("kernel", "stride", "padding", "dilation")
    )

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        place: list[Expr] = [index[0], index[1]]
        tests: list[Expr] = []
        for d, (i, k) in enumerate(zip(index[2:], ks, strict=True)):
            from_start = i + pad[d] - k * dilation[d]
            o = tirx.floordiv(from_start, stride[d]) if stride[d] > 1 else from_start
            place.append(o)
            tests += [from_start >= 0, o < dy.type.shape[2 + d]]
            tests += [tirx.EQ(o * stride[d], from_start)] if stride[d] > 1 else []
        guard = inside(scope, *tests)
        mine = scope.code.bind(x.at(scope, index))
        won: Expr = tirx.const(True, "bool")
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                where, here = _source_place(scope, attrs, x.type.shape, tuple(place), (r, s))
                here = here if guard is None or here is None else tirx.And(guard, here)
                other = scope.code.bind(
                    chosen(here, x.at(scope, where, here), number(-math.inf, dtype))
                )
                earlier = tirx.Or(ks[0] > r, tirx.And(tirx.EQ(ks[0], r), ks[1] > s))
                won = tirx.And(won, tirx.if_then_else(earlier, other < mine, other <= mine))
        given = dy.at(scope, tuple(place), guard)
        return tirx.Select(won, given, number(0, dtype))

    gather(b, sink, Window(kernel, monoid("reduce_sum", dtype), term))


def is_matmul(attrs: Attrs, kernel: tuple[int, int]) -> bool:
    """Return whether a convolution, or a gradient of one, is a product over all pixels."""
    plain = all(pair(attrs, name) == (1, 1) for name in ("stride", "dilation"))
    no_padding = pair(attrs, "padding") == (0, 0)
    return plain and kernel == (1, 1) and no_padding and attrs["groups"] == 1
