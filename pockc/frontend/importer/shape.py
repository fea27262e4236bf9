"""Shapes: views, slices, joins, padding, and writing into a part of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

from pockc.frontend.importer.base import Importer, Number, Unsupported, Value, lower


@lower(
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.flatten.using_ints",
)
def _view(b: Importer, x: Value, *_: object) -> Value:
    return b.reshape(x, b.out.shape)


@lower("aten.expand.default", "aten.broadcast_to.default")
def _expand(b: Importer, x: Value, *_: object, **__: object) -> Value:
    return b.expand(x, b.out.shape)


@lower("aten.permute.default")
def _permute(b: Importer, x: Value, dims: Sequence[int]) -> Value:
    return b.permute(x, dims)


@lower("aten.t.default")
def _t(b: Importer, x: Value) -> Value:
    return b.permute(x, tuple(reversed(range(len(b.shape(x))))))


@lower("aten.transpose.int", "aten.swapaxes.default")
def _transpose(b: Importer, x: Value, first: int, second: int) -> Value:
    perm = list(range(len(b.shape(x))))
    if perm:
        perm[first], perm[second] = perm[second], perm[first]
    return b.permute(x, perm)


def cut(b: Importer, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Return a range along one axis; the range lies within the tensor."""
    shape = b.shape(x)
    if (start, stop, step) == (0, shape[axis], 1):
        return x
    rank = len(shape)
    return b.emit(
        "slice",
        x,
        starts=tuple(start if d == axis else 0 for d in range(rank)),
        stops=tuple(stop if d == axis else shape[d] for d in range(rank)),
        steps=tuple(step if d == axis else 1 for d in range(rank)),
    )


def _bounds(n: int, start: int | None, end: int | None) -> tuple[int, int]:
    """Return a range as Python's slices mean it, within 0 and n."""
    first, last, _ = slice(start, end).indices(n)
    return first, max(first, last)


@lower("aten.slice.Tensor")
def _slice(
    b: Importer,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    axis = dim % len(b.shape(x))
    return cut(b, x, axis, *_bounds(b.shape(x)[axis], start, end), step)


@lower("aten.narrow.default", "aten.narrow_copy.default")
def _narrow(b: Importer, x: Value, dim: int, start: int, length: int) -> Value:
    axis = dim % len(b.shape(x))
    first = start % b.shape(x)[axis] if length else 0
    return cut(b, x, axis, first, first + length)


@lower("aten.select.int")
def _select(b: Importer, x: Value, dim: int, at: int) -> Value:
    axis = dim % len(b.shape(x))
    at %= b.shape(x)[axis]
    return b.reshape(cut(b, x, axis, at, at + 1), b.out.shape)


@lower("aten.unbind.int")
def _unbind(b: Importer, x: Value, dim: int = 0) -> tuple[Value, ...]:
    axis = dim % len(b.shape(x))
    shape = b.shape(x)
    rest = shape[:axis] + shape[axis + 1 :]
    return tuple(b.reshape(cut(b, x, axis, i, i + 1), rest) for i in range(shape[axis]))


@lower(
    "aten.split.Tensor",
    "aten.unsafe_split.Tensor",
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
)
def _split(
    b: Importer, x: Value, sizes: int | Sequence[int], dim: int = 0
) -> tuple[Value, ...]:
    axis = dim % len(b.shape(x))
    n = b.shape(x)[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, n - i) for i in range(0, n, sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(cut(b, x, axis, start, start + size))
        start += size
    return tuple(parts)


@lower("aten.cat.default")
def _cat(b: Importer, parts: Sequence[Value], dim: int = 0) -> Value:
    # torch lets an empty vector stand anywhere in a concatenation.
    kept = [b.to(p, b.out.dtype) for p in parts if b.shape(p) != (0,) or b.out.rank == 1]
    if len(kept) == 1:
        return kept[0]
    return b.emit("concat", *kept, axis=dim % b.out.rank)


@lower("aten.stack.default")
def _stack(b: Importer, parts: Sequence[Value], dim: int = 0) -> Value:
    axis = dim % b.out.rank
    shape = (*b.out.shape[:axis], 1, *b.out.shape[axis + 1 :])
    kept = [b.reshape(b.to(p, b.out.dtype), shape) for p in parts]
    return kept[0] if len(kept) == 1 else b.emit("concat", *kept, axis=axis)


@lower("aten.repeat.default")
def _repeat(b: Importer, x: Value, repeats: Sequence[int]) -> Value:
    shape = (1,) * (len(repeats) - len(b.shape(x))) + b.shape(x)
    split = [k for n in shape for k in (1, n)]
    wide = [k for r, n in zip(repeats, shape, strict=True) for k in (r, n)]
    return b.reshape(b.expand(b.reshape(x, split), wide), b.out.shape)


@lower("aten.constant_pad_nd.default")
def _pad(b: Importer, x: Value, amounts: Sequence[int], value: Number = 0) -> Value:
    """Negative amounts crop."""
    rank = len(b.shape(x))
    low, high = [0] * rank, [0] * rank
    for i in range(len(amounts) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        n = b.shape(x)[axis]
        x = cut(b, x, axis, max(0, -before), n - max(0, -after))
    return padded(b, x, [max(0, k) for k in low], [max(0, k) for k in high], value)


def padded(
    b: Importer, x: Value, low: Sequence[int], high: Sequence[int], value: Number = 0
) -> Value:
    """Return a tensor with a border of one number."""
    if not any(low) and not any(high):
        return x
    number = float(value) if b.type_of(x).dtype.is_float else int(value)
    return b.emit("pad", x, low=tuple(low), high=tuple(high), value=number)


@lower("aten.slice_backward.default")
def _slice_backward(
    b: Importer, dy: Value, sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Value:
    axis = dim % len(sizes)
    first, last = _bounds(sizes[axis], start, end)
    if step != 1:
        zeros = b.full(0, b.out)
        return b.emit("put", zeros, dy, axis=axis, indices=tuple(range(first, last, step)))
    low = [first if d == axis else 0 for d in range(len(sizes))]
    high = [sizes[axis] - last if d == axis else 0 for d in range(len(sizes))]
    return padded(b, dy, low, high)


@lower("aten.select_backward.default")
def _select_backward(b: Importer, dy: Value, sizes: Sequence[int], dim: int, at: int) -> Value:
    axis = dim % len(sizes)
    at %= sizes[axis]
    row = b.reshape(dy, (*sizes[:axis], 1, *sizes[axis + 1 :]))
    low = [at if d == axis else 0 for d in range(len(sizes))]
    high = [sizes[axis] - at - 1 if d == axis else 0 for d in range(len(sizes))]
    return padded(b, row, low, high)


@lower("aten.slice_scatter.default")
def _slice_scatter(
    b: Importer,
    x: Value,
    part: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    shape = b.shape(x)
    axis = dim % len(shape)
    first, last = _bounds(shape[axis], start, end)
    indices = tuple(range(first, last, step))
    target = tuple(len(indices) if d == axis else n for d, n in enumerate(shape))
    part = b.expand(b.to(part, b.out.dtype), target)
    if indices == tuple(range(shape[axis])):
        return part
    return b.emit("put", x, part, axis=axis, indices=indices)


@lower("aten.select_scatter.default")
def _select_scatter(b: Importer, x: Value, part: Value, dim: int, at: int) -> Value:
    shape = b.shape(x)
    axis = dim % len(shape)
    row = b.expand(b.to(part, b.out.dtype), shape[:axis] + shape[axis + 1 :])
    row = b.reshape(row, (*shape[:axis], 1, *shape[axis + 1 :]))
    return b.emit("put", x, row, axis=axis, indices=(at % shape[axis],))


@lower("aten.flip.default")
def _flip(b: Importer, x: Value, dims: Sequence[int]) -> Value:
    for dim in dims:
        axis = dim % len(b.shape(x))
        n = b.shape(x)[axis]
        order = b.apply("sub", n - 1, b.iota((n,), 0))
        x = b.emit("take", x, order, axis=axis)
    return x


@lower("aten.roll.default")
def _roll(b: Importer, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    shape = b.shape(x)
    if not dims:
        flat = b.reshape(x, (b.type_of(x).size,))
        return b.reshape(_rolled(b, flat, shifts[0], 0), shape)
    for shift, dim in zip(shifts, dims, strict=True):
        x = _rolled(b, x, shift, dim % len(shape))
    return x


def _rolled(b: Importer, x: Value, shift: int, axis: int) -> Value:
    n = b.shape(x)[axis]
    at = (n - shift) % n if n else 0
    if at == 0:
        return x
    return b.emit("concat", cut(b, x, axis, at, n), cut(b, x, axis, 0, at), axis=axis)


def _order(size: Sequence[int], stride: Sequence[int], count: int) -> list[int]:
    """Return the dimensions from the largest stride to the smallest.

    Raises:
        Unsupported: The strides do not visit every element of `count` exactly once.
    """
    order = sorted(range(len(size)), key=lambda d: (-stride[d], d))
    dense = 1
    for d in reversed(order):
        if size[d] != 1 and stride[d] != dense:
            raise Unsupported("of a part of the elements, or of some twice, is not supported")
        dense *= size[d]
    if dense != count:
        raise Unsupported("of a part of the elements, or of some twice, is not supported")
    return order


@lower("aten.as_strided.default")
def _as_strided(
    b: Importer, x: Value, size: Sequence[int], stride: Sequence[int], *_: int
) -> Value:
    order = _order(size, stride, b.type_of(x).size)
    y = b.reshape(x, [size[d] for d in order])
    return b.permute(y, [order.index(d) for d in range(len(size))])


@lower("aten.as_strided_scatter.default")
def _as_strided_scatter(
    b: Importer, x: Value, part: Value, size: Sequence[int], stride: Sequence[int], *_: int
) -> Value:
    """Every element of x is written, so that nothing of it remains."""
    order = _order(size, stride, b.type_of(x).size)
    return b.reshape(b.permute(part, order), b.shape(x))


@lower("aten.pixel_shuffle.default")
def _pixel_shuffle(b: Importer, x: Value, factor: int) -> Value:
    *lead, c, h, w = b.shape(x)
    k = len(lead)
    parts = b.reshape(x, (*lead, c // factor**2, factor, factor, h, w))
    mixed = b.permute(parts, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return b.reshape(mixed, b.out.shape)


@lower("aten.pixel_unshuffle.default")
def _pixel_unshuffle(b: Importer, x: Value, factor: int) -> Value:
    *lead, c, h, w = b.shape(x)
    k = len(lead)
    parts = b.reshape(x, (*lead, c, h // factor, factor, w // factor, factor))
    return b.reshape(b.permute(parts, (*range(k), k, k + 2, k + 4, k + 1, k + 3)), b.out.shape)


@lower("aten.diagonal.default", "aten.diagonal_copy.default")
def _diagonal(b: Importer, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    order = _diagonal_last(len(b.shape(x)), dim1, dim2)
    y = b.permute(x, order)
    *lead, rows, columns = b.shape(y)
    flat = b.reshape(y, (*lead, rows * columns))
    places = _diagonal_places(b, b.out.shape[-1], columns, offset)
    return b.emit("take", flat, places, axis=len(lead))


@lower("aten.diagonal_backward.default")
def _diagonal_backward(
    b: Importer, dy: Value, sizes: Sequence[int], offset: int, dim1: int, dim2: int
) -> Value:
    order = _diagonal_last(len(sizes), dim1, dim2)
    shape = [sizes[d] for d in order]
    *lead, rows, columns = shape
    places = _diagonal_places(b, b.shape(dy)[-1], columns, offset)
    flat = b.emit("take_grad", dy, places, axis=len(lead), size=rows * columns)
    return b.permute(b.reshape(flat, shape), [order.index(d) for d in range(len(order))])


def _diagonal_last(rank: int, dim1: int, dim2: int) -> list[int]:
    ends = [dim1 % rank, dim2 % rank]
    return [d for d in range(rank) if d not in ends] + ends


def _diagonal_places(b: Importer, count: int, columns: int, offset: int) -> Value:
    """Return where the diagonal lies in a matrix of so many columns, row after row."""
    first = offset if offset >= 0 else -offset * columns
    return b.apply("add", b.apply("mul", b.iota((count,), 0), columns + 1), first)
