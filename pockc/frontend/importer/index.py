"""Addresses given by data: embedding, gather, scatter, indexing with tensors."""

from __future__ import annotations

from collections.abc import Sequence

from pockc.frontend.importer.base import Importer, Number, Operand, Unsupported, Value, lower
from pockc.frontend.importer.shape import cut, padded
from pockc.ir import DType


def _positive(b: Importer, at: Value, n: int) -> Value:
    """Return indices with n added to the negative ones."""
    return b.where(b.apply("lt", at, 0), b.apply("add", at, n), at)


@lower("aten.embedding.default")
def _embedding(b: Importer, weight: Value, at: Value, *_: object) -> Value:
    return b.emit("take", weight, at, axis=0)


@lower("aten.embedding_dense_backward.default")
def _embedding_backward(
    b: Importer, dy: Value, at: Value, rows: int, padding: int, by_frequency: bool
) -> Value:
    if by_frequency:
        raise Unsupported("with scale_grad_by_freq is not supported")
    if padding >= 0:
        kept = b.apply("ne", b.reshape(at, (*b.shape(at), 1)), padding)
        dy = b.where(kept, dy, 0)
    return b.emit("take_grad", dy, at, axis=0, size=rows)


@lower("aten.index_select.default")
def _index_select(b: Importer, x: Value, dim: int, at: Value) -> Value:
    return b.reshape(b.emit("take", x, at, axis=dim % len(b.shape(x))), b.out.shape)


@lower("aten.index_add.default")
def _index_add(
    b: Importer, x: Value, dim: int, at: Value, source: Value, alpha: Number = 1
) -> Value:
    axis = dim % len(b.shape(x))
    added = b.emit("take_grad", source, at, axis=axis, size=b.shape(x)[axis])
    return b.emit("add", x, added if alpha == 1 else b.apply("mul", added, alpha))


def _fit(b: Importer, x: Value, shape: Sequence[int], axis: int) -> Value:
    """Crop all dimensions but one to those of an index tensor."""
    for d, n in enumerate(shape):
        if d != axis:
            x = cut(b, x, d, 0, n)
    return x


@lower("aten.gather.default")
def _gather(b: Importer, x: Value, dim: int, at: Value, **_: object) -> Value:
    axis = dim % len(b.shape(x))
    return b.emit("take_along", _fit(b, x, b.shape(at), axis), at, axis=axis)


def _scattered(b: Importer, source: Value, at: Value, axis: int, shape: Sequence[int]) -> Value:
    """Return zeros of a shape to which the source is added where the indices say."""
    source = _fit(b, cut(b, source, axis, 0, b.shape(at)[axis]), b.shape(at), axis)
    added = b.emit("take_along_grad", source, at, axis=axis, size=shape[axis])
    high = [n - k for n, k in zip(shape, b.shape(added), strict=True)]
    return padded(b, added, [0] * len(shape), high)


@lower("aten.scatter_add.default")
def _scatter_add(b: Importer, x: Value, dim: int, at: Value, source: Value) -> Value:
    shape = b.shape(x)
    return b.emit("add", x, _scattered(b, source, at, dim % len(shape), shape))


@lower("aten.scatter.src", "aten.scatter.value")
def _scatter(b: Importer, x: Value, dim: int, at: Value, source: Operand) -> Value:
    """As in torch, what happens where indices repeat is not defined."""
    shape, dtype = b.shape(x), b.type_of(x).dtype
    axis = dim % len(shape)
    wide = dtype if dtype.is_float else DType.F64
    ones = b.full(1, b.type_of(at).with_dtype(wide))
    hit = b.apply("gt", _scattered(b, ones, at, axis, shape), 0)
    if not isinstance(source, Value):
        return b.where(hit, source, x)
    moved = _scattered(b, b.to(source, wide), at, axis, shape)
    return b.where(hit, b.to(moved, dtype), x)


def _groups(
    b: Importer, x: Value, indices: Sequence[Value | None]
) -> tuple[Value, Value, list[int], int]:
    """Bring indexing with several tensors to indexing one flat axis.

    Returns:
        The tensor with its indexed dimensions in front and merged, the flat index, the
        dimensions in their order, and where the index's dimensions go in the result.
    """
    shape = b.shape(x)
    axes = [d for d, i in enumerate(indices) if i is not None]
    rest = [d for d in range(len(shape)) if d not in axes]
    together = axes == list(range(axes[0], axes[-1] + 1))
    flat: Value | None = None
    for axis in axes:
        at = indices[axis]
        if at is None or b.type_of(at).dtype is DType.B1:
            raise Unsupported("with a mask is not supported: its result has no fixed shape")
        at = _positive(b, b.to(at, DType.I64), shape[axis])
        flat = at if flat is None else b.emit("add", b.apply("mul", flat, shape[axis]), at)
    order = [*axes, *rest]
    merged = b.permute(x, order)
    size = 1
    for axis in axes:
        size *= shape[axis]
    merged = b.reshape(merged, (size, *(shape[d] for d in rest)))
    if flat is None:
        raise Unsupported("without an index is not supported")
    return merged, flat, order, axes[0] if together else 0


@lower("aten.index.Tensor", "aten._unsafe_index.Tensor")
def _index(b: Importer, x: Value, indices: Sequence[Value | None]) -> Value:
    axes = [d for d, i in enumerate(indices) if i is not None]
    if len(axes) == 1 and (at := indices[axes[0]]) is not None:
        if b.type_of(at).dtype is DType.B1:
            raise Unsupported("with a mask is not supported: its result has no fixed shape")
        at = _positive(b, b.to(at, DType.I64), b.shape(x)[axes[0]])
        return b.emit("take", x, at, axis=axes[0])
    merged, flat, _, place = _groups(b, x, indices)
    rows = b.emit("take", merged, flat, axis=0)
    return b.permute(rows, _move(len(b.shape(flat)), place, len(b.shape(rows))))


def _move(count: int, place: int, rank: int) -> list[int]:
    """Return the permutation that moves the first `count` dimensions behind `place` others."""
    rest = list(range(count, rank))
    return [*rest[:place], *range(count), *rest[place:]]


@lower("aten.index_put.default", "aten._unsafe_index_put.default")
def _index_put(
    b: Importer,
    x: Value,
    indices: Sequence[Value | None],
    values: Value,
    accumulate: bool = False,
) -> Value:
    """As in torch, what happens where indices repeat is not defined unless they accumulate."""
    merged, flat, order, place = _groups(b, x, indices)
    count, size = len(b.shape(flat)), b.shape(merged)[0]
    rank = count + len(b.shape(merged)) - 1
    to_front = _move(count, place, rank)
    rest = b.shape(merged)[1:]
    full = (*rest[:place], *b.shape(flat), *rest[place:])
    wide = b.expand(values, full)
    front = b.permute(wide, [to_front.index(d) for d in range(rank)])
    added = b.emit("take_grad", front, flat, axis=0, size=size)
    back = _inverse(order)
    shape = tuple(b.shape(x)[d] for d in order)
    whole = b.permute(b.reshape(added, shape), back)
    if accumulate:
        return b.emit("add", x, whole)
    ones = b.full(1, b.type_of(flat).with_dtype(DType.F32))
    hits = b.emit("take_grad", ones, flat, axis=0, size=size)
    hit = b.reshape(b.apply("gt", hits, 0), (size, *(1,) * len(rest)))
    hit = b.reshape(b.expand(hit, b.shape(merged)), shape)
    return b.where(b.permute(hit, back), whole, x)


def _inverse(order: Sequence[int]) -> list[int]:
    return [list(order).index(d) for d in range(len(order))]
