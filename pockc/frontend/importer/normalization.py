"""Layer, group, batch and RMS norm, and their gradients, as sums and products.

With x^ = (x - mean) * rstd and g = dy * weight, the gradient of every one of them is
dx = rstd * (g - mean(g) - x^ * mean(g * x^)); RMS norm lacks the term mean(g).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

from pockc.frontend.importer.base import Importer, Value, lower
from pockc.frontend.importer.reduction import mean, moments


def _scaled(b: Importer, x: Value, weight: Value | None, bias: Value | None = None) -> Value:
    if weight is not None:
        x = b.emit("mul", x, b.to(weight, b.type_of(x).dtype))
    return x if bias is None else b.emit("add", x, b.to(bias, b.type_of(x).dtype))


def _centred(b: Importer, x: Value, average: Value, rstd: Value) -> Value:
    return b.emit("mul", b.emit("sub", x, average), rstd)


def _input_gradient(
    b: Importer,
    g: Value,
    normal: Value,
    rstd: Value,
    axes: Sequence[int],
    *,
    centred: bool = True,
) -> Value:
    along = mean(b, b.emit("mul", g, normal), axes, keepdims=True)
    rest = b.emit("sub", g, mean(b, g, axes, keepdims=True)) if centred else g
    return b.emit("mul", rstd, b.emit("sub", rest, b.emit("mul", normal, along)))


@lower("aten.native_layer_norm.default")
def _layer_norm(
    b: Importer,
    x: Value,
    shape: Sequence[int],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> tuple[Value, Value, Value]:
    axes = _last(b, x, len(shape))
    var, average = moments(b, x, axes)
    rstd = b.emit("rsqrt", b.apply("add", var, eps))
    return _scaled(b, _centred(b, x, average, rstd), weight, bias), average, rstd


@lower("aten.native_layer_norm_backward.default")
def _layer_norm_backward(
    b: Importer,
    dy: Value,
    x: Value,
    shape: Sequence[int],
    average: Value,
    rstd: Value,
    weight: Value | None,
    bias: Value | None,  # noqa: ARG001
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    normal = _centred(b, x, average, rstd)
    axes = _last(b, x, len(shape))
    dx = None
    if mask[0]:
        dx = _input_gradient(b, _scaled(b, dy, weight), normal, rstd, axes)
    dw = b.sum_to(b.emit("mul", dy, normal), shape) if mask[1] else None
    return dx, dw, b.sum_to(dy, shape) if mask[2] else None


def _last(b: Importer, x: Value, count: int) -> tuple[int, ...]:
    rank = len(b.shape(x))
    return tuple(range(rank - count, rank))


@lower("aten._fused_rms_norm.default")
def _rms_norm(
    b: Importer, x: Value, shape: Sequence[int], weight: Value | None, eps: float | None
) -> tuple[Value, Value]:
    axes = _last(b, x, len(shape))
    size = mean(b, b.emit("mul", x, x), axes, keepdims=True)
    floor = 2.0**-52 if b.type_of(x).dtype.nbytes == 8 else 2.0**-23
    rstd = b.emit("rsqrt", b.apply("add", size, floor if eps is None else eps))
    return _scaled(b, b.emit("mul", x, rstd), weight), rstd


@lower("aten._fused_rms_norm_backward.default")
def _rms_norm_backward(
    b: Importer,
    dy: Value,
    x: Value,
    shape: Sequence[int],
    rstd: Value,
    weight: Value | None,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    normal = b.emit("mul", x, rstd)
    axes = _last(b, x, len(shape))
    dx = None
    if mask[0]:
        dx = _input_gradient(b, _scaled(b, dy, weight), normal, rstd, axes, centred=False)
    return dx, b.sum_to(b.emit("mul", dy, normal), shape) if mask[1] else None


@lower("aten.native_group_norm.default")
def _group_norm(
    b: Importer,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    n: int,
    channels: int,
    size: int,
    groups: int,
    eps: float,
) -> tuple[Value, Value, Value]:
    parts = b.reshape(x, (n, groups, channels // groups, size))
    var, average = moments(b, parts, (2, 3))
    rstd = b.emit("rsqrt", b.apply("add", var, eps))
    normal = b.reshape(_centred(b, parts, average, rstd), b.shape(x))
    y = _scaled(b, normal, _along(b, weight, x), _along(b, bias, x))
    return y, b.reshape(average, (n, groups)), b.reshape(rstd, (n, groups))


@lower("aten.native_group_norm_backward.default")
def _group_norm_backward(
    b: Importer,
    dy: Value,
    x: Value,
    average: Value,
    rstd: Value,
    weight: Value | None,
    n: int,
    channels: int,
    size: int,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    parts = (n, groups, channels // groups, size)
    wide = (n, groups, 1, 1)
    rstd = b.reshape(rstd, wide)
    normal = _centred(b, b.reshape(x, parts), b.reshape(average, wide), rstd)
    dx = None
    if mask[0]:
        g = b.reshape(_scaled(b, dy, _along(b, weight, x)), parts)
        dx = b.reshape(_input_gradient(b, g, normal, rstd, (2, 3)), b.shape(x))
    rest = _all_but_channels(b, x)
    dw = None
    if mask[1]:
        product = b.emit("mul", dy, b.reshape(normal, b.shape(x)))
        dw = b.reduce("reduce_sum", product, rest)
    return dx, dw, b.reduce("reduce_sum", dy, rest) if mask[2] else None


@overload
def _along(b: Importer, vector: Value, x: Value) -> Value: ...


@overload
def _along(b: Importer, vector: None, x: Value) -> None: ...


@overload
def _along(b: Importer, vector: Value | None, x: Value) -> Value | None: ...


def _along(b: Importer, vector: Value | None, x: Value) -> Value | None:
    """Return a number per channel so that it broadcasts over (N, C, ...)."""
    if vector is None:
        return None
    rank = len(b.shape(x))
    return b.reshape(vector, (1, b.type_of(vector).size, *(1,) * (rank - 2)))


def _all_but_channels(b: Importer, x: Value) -> tuple[int, ...]:
    return tuple(d for d in range(len(b.shape(x))) if d != 1)


def _batch_norm(
    b: Importer, x: Value, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, Value, Value, Value]:
    """Return the result, mean, rstd and variance over all but the channels."""
    axes = _all_but_channels(b, x)
    var, average = moments(b, x, axes)
    rstd = b.emit("rsqrt", b.apply("add", var, eps))
    normal = _centred(b, x, average, rstd)
    y = _scaled(b, normal, _along(b, weight, x), _along(b, bias, x))
    channels = (b.shape(x)[1],)
    return y, *(b.reshape(v, channels) for v in (average, rstd, var))  # type: ignore[return-value]


@lower("aten._native_batch_norm_legit_functional.default")
def _batch_norm_update(
    b: Importer,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    training: bool,  # noqa: ARG001  always true: `composite` replaces the other form
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    y, average, rstd, var = _batch_norm(b, x, weight, bias, eps)
    count = b.type_of(x).size // b.shape(x)[1]
    unbiased = b.apply("mul", var, count / (count - 1) if count > 1 else math.nan)
    moved = [
        b.emit("add", b.apply("mul", new, momentum), b.apply("mul", old, 1 - momentum))
        for old, new in ((running_mean, average), (running_var, unbiased))
    ]
    return y, average, rstd, moved[0], moved[1]


@lower("aten._native_batch_norm_legit_no_training.default")
def _batch_norm_frozen(
    b: Importer,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,  # noqa: ARG001
    eps: float,
) -> tuple[Value | None, ...]:
    """By running statistics, whose gradient needs nothing of what torch saves."""
    normal, _ = _frozen(b, x, running_mean, running_var, eps)
    return _scaled(b, normal, _along(b, weight, x), _along(b, bias, x)), None, None


def _frozen(b: Importer, x: Value, mean: Value, var: Value, eps: float) -> tuple[Value, Value]:
    """Return x normalised by given statistics, and 1 / sqrt(var + eps) per channel."""
    rstd = _along(b, b.emit("rsqrt", b.apply("add", var, eps)), x)
    centre = _along(b, mean, x)
    return b.emit("mul", b.emit("sub", x, centre), rstd), rstd


@lower("aten._native_batch_norm_legit.no_stats")
def _batch_norm_no_stats(
    b: Importer,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    training: bool,  # noqa: ARG001
    momentum: float,  # noqa: ARG001
    eps: float,
) -> tuple[Value, ...]:
    return _batch_norm(b, x, weight, bias, eps)[:3]


@lower("aten.native_batch_norm_backward.default")
def _batch_norm_backward(
    b: Importer,
    dy: Value,
    x: Value,
    weight: Value | None,
    running_mean: Value,
    running_var: Value,
    average: Value | None,
    rstd: Value | None,
    training: bool,
    eps: float,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    axes = _all_but_channels(b, x)
    g = _scaled(b, dy, _along(b, weight, x))
    if training and average is not None and rstd is not None:
        wide = _along(b, rstd, x)
        normal = _centred(b, x, _along(b, average, x), wide)
        dx = _input_gradient(b, g, normal, wide, axes) if mask[0] else None
    else:
        normal, wide = _frozen(b, x, running_mean, running_var, eps)
        dx = b.emit("mul", g, wide) if mask[0] else None
    dw = b.reduce("reduce_sum", b.emit("mul", dy, normal), axes) if mask[1] else None
    return dx, dw, b.reduce("reduce_sum", dy, axes) if mask[2] else None
