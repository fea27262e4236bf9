"""Ops whose elements are elements of an operand: views, slices, padding, gathers."""

from __future__ import annotations

import math

from tvm import tirx

from pockc.backends.tvm.kernels.elementwise import flat
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import At, Index, inline, number


@inline("permute")
def _permute(at: At) -> Expr:
    index: list[Expr] = [0] * len(at.index)
    for new, old in enumerate(at.node.attrs["perm"]):
        index[old] = at.index[new]
    return at(0, tuple(index))


@inline("reshape")
def _reshape(at: At) -> Expr:
    return at(0, reshaped_index(at.index, at.node.type.shape, at.type(0).shape))


def reshaped_index(index: Index, shape: tuple[int, ...], old: tuple[int, ...]) -> Index:
    """Return where in a tensor of shape `old` the element `index` of its reshape is.

    Groups of dimensions with equal products are looked at alone: the index of a group that did
    not change is passed on as it is, without division.
    """
    result: list[Expr] = []
    i = j = 0
    while j < len(old):
        left, right = i, j
        while True:
            a, b = math.prod(shape[left:i]), math.prod(old[right:j])
            if a == b and j > right:
                break
            if (a < b or j > right) and i < len(shape) and a <= b:
                i += 1
            else:
                j += 1
        result += _split(
            _merge(index[left:i], shape[left:i]), index[left:i], shape[left:i], old[right:j]
        )
    return tuple(result)


def _merge(index: Index, shape: tuple[int, ...]) -> Expr:
    return flat(index, shape)


def _split(
    whole: Expr, index: Index, shape: tuple[int, ...], old: tuple[int, ...]
) -> list[Expr]:
    if shape == old:
        return list(index)
    parts: list[Expr] = []
    rest = math.prod(old)
    for n in old:
        rest //= max(n, 1)
        if n == 1:
            parts.append(0)
        elif isinstance(whole, int):
            parts.append(whole // rest % n)
        else:
            part = whole if rest == 1 else tirx.floordiv(whole, rest)
            first = rest * n == math.prod(old)
            parts.append(part if first else tirx.floormod(part, n))
    return parts


@inline("broadcast_to", "relayout")
def _same_place(at: At) -> Expr:
    return at(0)


@inline("slice")
def _slice(at: At) -> Expr:
    starts, steps = at.node.attrs["starts"], at.node.attrs["steps"]
    return at(0, tuple(i * s + a for i, a, s in zip(at.index, starts, steps, strict=True)))


@inline("pad")
def _pad(at: At) -> Expr:
    inside: Expr | None = None
    index: list[Expr] = []
    for i, low, n, total in zip(
        at.index, at.node.attrs["low"], at.type(0).shape, at.node.type.shape, strict=True
    ):
        moved = i - low if low else i
        index.append(moved)
        tests = [moved >= 0] if low else []
        tests += [moved < n] if low + n < total else []
        for test in tests:
            holds = _decided(at, test)
            if holds is False:
                return number(at.node.attrs["value"], at.dtype)
            if holds is None:
                inside = test if inside is None else tirx.And(inside, test)
    if inside is None:
        return at(0, tuple(index))
    value = at(0, tuple(index), at.when(inside))
    return tirx.Select(inside, value, number(at.node.attrs["value"], at.dtype))


def _decided(at: At, test: Expr) -> bool | None:
    """Return whether a test always or never holds here, None if it depends.

    Only what differs between lanes is worth the proof: other tests are cheap branches.
    """
    if not hasattr(test, "ty"):
        return bool(test)
    scope = at.scope
    if scope.lane is None or not scope.code.depends(test, scope.lane):
        return None
    return scope.code.decide(test)


@inline("concat")
def _concat(at: At) -> Expr:
    axis = at.node.attrs["axis"]
    i, start = at.index[axis], 0
    value: Expr | None = None
    for operand in range(len(at.node.inputs)):
        n = at.type(operand).shape[axis]
        moved = i - start if start else i
        index = (*at.index[:axis], moved, *at.index[axis + 1 :])
        inside = tirx.And(i >= start, i < start + n)
        start += n
        holds = n == at.node.type.shape[axis] or (n > 0 and _decided(at, inside))
        if holds:
            return at(operand, index)
        if holds is None:
            here = at(operand, index, at.when(inside))
            value = here if value is None else tirx.Select(inside, here, value)
    return number(0, at.dtype) if value is None else value


@inline("take")
def _take(at: At) -> Expr:
    axis, rank = at.node.attrs["axis"], at.type(1).rank
    chosen = at(1, at.index[axis : axis + rank])
    row = at.scope.code.bind(tirx.Cast(at.scope.code.index_dtype, chosen))
    return at(0, (*at.index[:axis], row, *at.index[axis + rank :]))


@inline("take_along")
def _take_along(at: At) -> Expr:
    axis = at.node.attrs["axis"]
    row = at.scope.code.bind(tirx.Cast(at.scope.code.index_dtype, at(1, at.index)))
    return at(0, (*at.index[:axis], row, *at.index[axis + 1 :]))
