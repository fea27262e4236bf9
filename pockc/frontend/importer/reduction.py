"""Sums, means, extrema, norms and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pockc.frontend.importer.base import Importer, Number, Value, lower
from pockc.ir import DType

Dims = Sequence[int] | int | None


def axes_of(b: Importer, x: Value, dim: Dims) -> tuple[int, ...]:
    """Return dimensions as torch gives them as axes from 0; none given means all."""
    rank = len(b.shape(x))
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(rank))
    dims = (dim,) if isinstance(dim, int) else dim
    return tuple(sorted(d % rank for d in dims)) if rank else ()


def mean(b: Importer, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
    """Return the mean along axes."""
    count = math.prod(b.shape(x)[d] for d in axes)
    total = b.reduce("reduce_sum", x, axes, keepdims=keepdims)
    return b.apply("mul", total, 1.0 / count if count else math.nan)


@lower("aten.sum.default", "aten.sum.dim_IntList")
def _sum(b: Importer, x: Value, dim: Dims = None, keepdim: bool = False, **_: object) -> Value:
    x = b.to(x, b.out.dtype)
    return b.reduce("reduce_sum", x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.mean.default", "aten.mean.dim")
def _mean(b: Importer, x: Value, dim: Dims = None, keepdim: bool = False, **_: object) -> Value:
    x = b.to(x, b.out.dtype)
    return mean(b, x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.amax.default")
def _amax(b: Importer, x: Value, dim: Dims = (), keepdim: bool = False) -> Value:
    return extremum(b, "reduce_max", x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.amin.default")
def _amin(b: Importer, x: Value, dim: Dims = (), keepdim: bool = False) -> Value:
    return extremum(b, "reduce_min", x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.max.default")
def _max(b: Importer, x: Value) -> Value:
    return extremum(b, "reduce_max", x, axes_of(b, x, None))


@lower("aten.min.default")
def _min(b: Importer, x: Value) -> Value:
    return extremum(b, "reduce_min", x, axes_of(b, x, None))


def extremum(
    b: Importer, op: str, x: Value, axes: Sequence[int], *, keepdims: bool = False
) -> Value:
    """Return the largest or smallest element along axes; truth values count as 0 and 1."""
    dtype = b.type_of(x).dtype
    if dtype is DType.B1:
        return b.to(b.reduce(op, b.to(x, DType.I32), axes, keepdims=keepdims), dtype)
    return b.reduce(op, x, axes, keepdims=keepdims)


@lower("aten.max.dim")
def _max_dim(b: Importer, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _with_index(b, "reduce_max", x, dim, keepdim)


@lower("aten.min.dim")
def _min_dim(b: Importer, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _with_index(b, "reduce_min", x, dim, keepdim)


def _with_index(b: Importer, op: str, x: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    axis = dim % len(b.shape(x))
    best = extremum(b, op, x, (axis,), keepdims=keepdim)
    at = b.emit("argmax", x if op == "reduce_max" else b.emit("neg", x), axis=axis)
    return best, b.reshape(at, b.shape(best))


@lower("aten.argmax.default")
def _argmax(b: Importer, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:  # noqa: ARG001
    if dim is None:
        return b.reshape(b.emit("argmax", _flat(b, x), axis=0), b.out.shape)
    return b.reshape(b.emit("argmax", x, axis=dim % len(b.shape(x))), b.out.shape)


@lower("aten.argmin.default")
def _argmin(b: Importer, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _argmax(b, b.emit("neg", x), dim, keepdim)


def _flat(b: Importer, x: Value) -> Value:
    return b.reshape(x, (b.type_of(x).size,))


@lower("aten.any.default", "aten.any.dim", "aten.any.dims")
def _any(b: Importer, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    x = b.to(x, DType.B1)
    return extremum(b, "reduce_max", x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.all.default", "aten.all.dim", "aten.all.dims")
def _all(b: Importer, x: Value, dim: Dims = None, keepdim: bool = False) -> Value:
    x = b.to(x, DType.B1)
    return extremum(b, "reduce_min", x, axes_of(b, x, dim), keepdims=keepdim)


@lower("aten.cumsum.default")
def _cumsum(b: Importer, x: Value, dim: int, **_: object) -> Value:
    x = b.to(x, b.out.dtype)
    return b.emit("cumsum", x, axis=dim % len(b.shape(x))) if b.shape(x) else x


def moments(
    b: Importer, x: Value, axes: Sequence[int], correction: Number = 0
) -> tuple[Value, Value]:
    """Return variance and mean along axes, which stay with size 1."""
    average = mean(b, x, axes, keepdims=True)
    off = b.emit("sub", x, average)
    total = b.reduce("reduce_sum", b.emit("mul", off, off), axes, keepdims=True)
    count = math.prod(b.shape(x)[d] for d in axes) - correction
    return b.apply("mul", total, 1.0 / count if count > 0 else math.nan), average


@lower("aten.var.correction", "aten.std.correction")
def _var(
    b: Importer,
    x: Value,
    dim: Dims = None,
    correction: Number | None = 1,
    keepdim: bool = False,  # noqa: ARG001
) -> Value:
    var, _ = moments(b, x, axes_of(b, x, dim), 1 if correction is None else correction)
    var = b.reshape(var, b.out.shape)
    return b.emit("sqrt", var) if "std" in str(b.node.target) else var


@lower("aten.var_mean.correction", "aten.std_mean.correction")
def _var_mean(
    b: Importer,
    x: Value,
    dim: Dims = None,
    correction: Number | None = 1,
    keepdim: bool = False,  # noqa: ARG001
) -> tuple[Value, Value]:
    var, average = moments(b, x, axes_of(b, x, dim), 1 if correction is None else correction)
    var, average = (b.reshape(v, b.out.shape) for v in (var, average))
    return (b.emit("sqrt", var) if "std" in str(b.node.target) else var), average


@lower("aten.linalg_vector_norm.default")
def _vector_norm(
    b: Importer,
    x: Value,
    order: Number = 2,
    dim: Dims = None,
    keepdim: bool = False,
    **_: object,
) -> Value:
    x = b.to(x, b.out.dtype)
    axes = axes_of(b, x, dim)
    if order in (math.inf, -math.inf):
        op = "reduce_max" if order > 0 else "reduce_min"
        return b.reduce(op, b.emit("abs", x), axes, keepdims=keepdim)
    if order == 0:
        other = b.to(b.apply("ne", x, 0), b.out.dtype)
        return b.reduce("reduce_sum", other, axes, keepdims=keepdim)
    if order == 2:
        total = b.reduce("reduce_sum", b.emit("mul", x, x), axes, keepdims=keepdim)
        return b.emit("sqrt", total)
    size = b.emit("abs", x)
    if order == 1:
        return b.reduce("reduce_sum", size, axes, keepdims=keepdim)
    total = b.reduce("reduce_sum", b.apply("pow", size, order), axes, keepdims=keepdim)
    return b.apply("pow", total, 1.0 / order)


@lower("aten.norm.Scalar", "aten.norm.ScalarOpt_dim")
def _norm(
    b: Importer, x: Value, order: Number | None = 2, dim: Dims = None, keepdim: bool = False
) -> Value:
    return _vector_norm(b, x, 2 if order is None else order, dim, keepdim)


@lower("aten.logsumexp.default")
def _logsumexp(b: Importer, x: Value, dim: Dims, keepdim: bool = False) -> Value:  # noqa: ARG001
    axes = axes_of(b, x, dim)
    top = _finite(b, b.reduce("reduce_max", x, axes, keepdims=True))
    total = b.reduce("reduce_sum", b.emit("exp", b.emit("sub", x, top)), axes, keepdims=True)
    return b.reshape(b.emit("add", b.emit("log", total), top), b.out.shape)


def _finite(b: Importer, top: Value) -> Value:
    """Lift a maximum of minus infinity, which cannot be subtracted from itself."""
    return b.apply("maximum", top, -1e30 if b.type_of(top).dtype is not DType.F16 else -6e4)


@lower("aten._softmax.default")
def _softmax(b: Importer, x: Value, dim: int, _: bool) -> Value:
    x = b.to(x, b.out.dtype)
    axis = axes_of(b, x, dim)
    top = b.reduce("reduce_max", x, axis, keepdims=True)
    e = b.emit("exp", b.emit("sub", x, top))
    return b.emit("div", e, b.reduce("reduce_sum", e, axis, keepdims=True))


@lower("aten._safe_softmax.default")
def _safe_softmax(b: Importer, x: Value, dim: int, *_: object) -> Value:
    """Rows that are minus infinity everywhere give zeros: their sum 0 becomes 1.

    Any other row holds exp(0) once, so that its sum is at least 1 already.
    """
    x = b.to(x, b.out.dtype)
    axis = axes_of(b, x, dim)
    top = _finite(b, b.reduce("reduce_max", x, axis, keepdims=True))
    e = b.emit("exp", b.emit("sub", x, top))
    total = b.apply("maximum", b.reduce("reduce_sum", e, axis, keepdims=True), 1)
    return b.emit("div", e, total)


@lower("aten._softmax_backward_data.default")
def _softmax_backward(b: Importer, dy: Value, y: Value, dim: int, _: object) -> Value:
    axis = axes_of(b, y, dim)
    total = b.reduce("reduce_sum", b.emit("mul", dy, y), axis, keepdims=True)
    return b.to(b.emit("mul", y, b.emit("sub", dy, total)), b.out.dtype)


@lower("aten._log_softmax.default")
def _log_softmax(b: Importer, x: Value, dim: int, _: bool) -> Value:
    x = b.to(x, b.out.dtype)
    axis = axes_of(b, x, dim)
    off = b.emit("sub", x, b.reduce("reduce_max", x, axis, keepdims=True))
    total = b.reduce("reduce_sum", b.emit("exp", off), axis, keepdims=True)
    return b.emit("sub", off, b.emit("log", total))


@lower("aten._log_softmax_backward_data.default")
def _log_softmax_backward(b: Importer, dy: Value, y: Value, dim: int, _: object) -> Value:
    axis = axes_of(b, y, dim)
    total = b.reduce("reduce_sum", dy, axis, keepdims=True)
    return b.to(b.emit("sub", dy, b.emit("mul", b.emit("exp", y), total)), b.out.dtype)
