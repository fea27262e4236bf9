"""Pooling of one and two dimensions, fixed and adaptive, and resizing by whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pockc.frontend.importer.base import Importer, Unsupported, Value, lower
from pockc.frontend.importer.reduction import mean


def _pair(values: Sequence[int] | int) -> tuple[int, int]:
    several = (values,) if isinstance(values, int) else tuple(values)
    return (several[0], several[-1])


def _batched(b: Importer, x: Value) -> Value:
    """Return (C, H, W) as (1, C, H, W)."""
    shape = b.shape(x)
    return x if len(shape) == 4 else b.reshape(x, (1, *shape))


def _max_form(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
) -> dict[str, tuple[int, int] | bool]:
    return {
        "kernel": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "dilation": _pair(dilation),
        "ceil_mode": ceil,
    }


@lower("aten.max_pool2d_with_indices.default")
def _max_pool(
    b: Importer,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> tuple[Value, None]:
    """The indices are for the gradient alone, which finds the maxima again."""
    form = _max_form(kernel, stride, padding, dilation, ceil)
    for user in b.node.users:
        readers = [u for u in user.users if u in b.live]
        if user.args[1:] == (1,) and any("backward" not in str(u.target) for u in readers):
            raise Unsupported("whose indices are used is not supported")
    y = b.emit("max_pool2d", _batched(b, x), **form)
    return b.reshape(y, (*b.shape(x)[:-2], *b.shape(y)[-2:])), None


@lower("aten.max_pool2d_with_indices_backward.default")
def _max_pool_backward(
    b: Importer,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    _: object,
) -> Value:
    form = _max_form(kernel, stride, padding, dilation, ceil)
    dx = b.emit("max_pool2d_grad", _batched(b, x), _batched(b, dy), **form)
    return b.reshape(dx, b.shape(x))


def _avg_form(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    count_pad: bool,
) -> dict[str, tuple[int, int] | bool]:
    return {
        "kernel": _pair(kernel),
        "stride": _pair(stride or kernel),
        "padding": _pair(padding),
        "ceil_mode": ceil,
        "count_include_pad": count_pad,
    }


@lower("aten.avg_pool2d.default")
def _avg_pool(
    b: Importer,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    _no_divisor(divisor)
    form = _avg_form(kernel, stride, padding, ceil, count_pad)
    return b.reshape(b.emit("avg_pool2d", _batched(b, x), **form), b.out.shape)


@lower("aten.avg_pool2d_backward.default")
def _avg_pool_backward(
    b: Importer,
    dy: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    count_pad: bool,
    divisor: int | None,
) -> Value:
    _no_divisor(divisor)
    form = _avg_form(kernel, stride, padding, ceil, count_pad)
    shape = (1,) * (4 - len(b.shape(x))) + b.shape(x)
    dx = b.emit("avg_pool2d_grad", _batched(b, dy), input_shape=shape, **form)
    return b.reshape(dx, b.shape(x))


def _no_divisor(divisor: int | None) -> None:
    if divisor is not None:
        raise Unsupported("with divisor_override is not supported")


def _even(n: int, out: int) -> bool:
    return n % out == 0


def _averages(n: int, out: int) -> np.ndarray:
    """Return the (out, n) matrix that averages torch's uneven adaptive windows."""
    matrix = np.zeros((out, n))
    for i in range(out):
        start, stop = i * n // out, -((-(i + 1) * n) // out)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


@lower("aten._adaptive_avg_pool2d.default")
def _adaptive_avg(b: Importer, x: Value, size: Sequence[int]) -> Value:
    h, w = b.shape(x)[-2:]
    oh, ow = size
    if (oh, ow) == (1, 1):
        rank = len(b.shape(x))
        return mean(b, x, (rank - 2, rank - 1), keepdims=True)
    if _even(h, oh) and _even(w, ow):
        form = _avg_form((h // oh, w // ow), (), (0,), False, True)
        return b.reshape(b.emit("avg_pool2d", _batched(b, x), **form), b.out.shape)
    rows, columns = _matrices(b, h, w, oh, ow)
    return b.emit("matmul", b.emit("matmul", rows, x), b.permute(columns, (1, 0)))


@lower("aten._adaptive_avg_pool2d_backward.default")
def _adaptive_avg_backward(b: Importer, dy: Value, x: Value) -> Value:
    (h, w), (oh, ow) = b.shape(x)[-2:], b.shape(dy)[-2:]
    if _even(h, oh) and _even(w, ow):
        kernel = (h // oh, w // ow)
        if (oh, ow) == (1, 1):
            return b.expand(b.apply("mul", dy, 1.0 / (h * w)), b.shape(x))
        shape = (1,) * (4 - len(b.shape(x))) + b.shape(x)
        form = _avg_form(kernel, (), (0,), False, True)
        dx = b.emit("avg_pool2d_grad", _batched(b, dy), input_shape=shape, **form)
        return b.reshape(dx, b.shape(x))
    rows, columns = _matrices(b, h, w, oh, ow)
    return b.emit("matmul", b.emit("matmul", b.permute(rows, (1, 0)), dy), columns)


def _matrices(b: Importer, h: int, w: int, oh: int, ow: int) -> tuple[Value, Value]:
    dtype = b.out.dtype.np
    return (
        b.literal(_averages(h, oh).astype(dtype)),
        b.literal(_averages(w, ow).astype(dtype)),
    )


@lower("aten.adaptive_max_pool2d.default")
def _adaptive_max(b: Importer, x: Value, size: Sequence[int]) -> tuple[Value, None]:
    form = _adaptive_max_form(b, x, size)
    y = b.emit("max_pool2d", _batched(b, x), **form)
    return b.reshape(y, (*b.shape(x)[:-2], *size)), None


@lower("aten.adaptive_max_pool2d_backward.default")
def _adaptive_max_backward(b: Importer, dy: Value, x: Value, _: object) -> Value:
    form = _adaptive_max_form(b, x, b.shape(dy)[-2:])
    dx = b.emit("max_pool2d_grad", _batched(b, x), _batched(b, dy), **form)
    return b.reshape(dx, b.shape(x))


def _adaptive_max_form(
    b: Importer, x: Value, size: Sequence[int]
) -> dict[str, tuple[int, int] | bool]:
    (h, w), (oh, ow) = b.shape(x)[-2:], size
    if not (_even(h, oh) and _even(w, ow)):
        raise Unsupported(f"from {h}x{w} to {oh}x{ow} is not supported: the sizes must divide")
    return _max_form((h // oh, w // ow), (), (0,), (1,), False)


@lower("aten.upsample_nearest2d.default")
def _upsample(b: Importer, x: Value, size: Sequence[int], *_: object) -> Value:
    n, c, h, w = b.shape(x)
    kh, kw = _factors(h, w, size)
    wide = b.expand(b.reshape(x, (n, c, h, 1, w, 1)), (n, c, h, kh, w, kw))
    return b.reshape(wide, b.out.shape)


@lower("aten.upsample_nearest2d_backward.default")
def _upsample_backward(
    b: Importer, dy: Value, size: Sequence[int], shape: Sequence[int], *_: object
) -> Value:
    n, c, h, w = shape
    kh, kw = _factors(h, w, size)
    return b.reduce("reduce_sum", b.reshape(dy, (n, c, h, kh, w, kw)), (3, 5))


def _factors(h: int, w: int, size: Sequence[int]) -> tuple[int, int]:
    if size[0] % h or size[1] % w:
        raise Unsupported(
            f"from {h}x{w} to {size[0]}x{size[1]} is not supported: the factor must be whole"
        )
    return size[0] // h, size[1] // w
