"""The loss functions of torch.nn.functional and their gradients.

Class labels become a comparison with the class numbers, never a scatter: forward and backward
are then elementwise with one sum per row.
"""

from __future__ import annotations

from pockc.frontend.importer.activation import soft_maximum
from pockc.frontend.importer.base import Importer, Value, lower
from pockc.frontend.importer.reduction import mean

_NONE, _MEAN, _SUM = 0, 1, 2


def _reduced(b: Importer, x: Value, reduction: int) -> Value:
    axes = tuple(range(len(b.shape(x))))
    if reduction == _MEAN:
        return mean(b, x, axes, keepdims=False)
    return b.reduce("reduce_sum", x, axes) if reduction == _SUM else x


def _share(b: Importer, dy: Value, x: Value, reduction: int) -> Value:
    """Return what each element of the loss is worth."""
    return b.apply("mul", dy, 1.0 / b.type_of(x).size) if reduction == _MEAN else dy


@lower("aten.mse_loss.default")
def _mse(b: Importer, x: Value, y: Value, reduction: int = _MEAN) -> Value:
    off = b.apply("sub", x, y, dtype=b.out.dtype)
    return _reduced(b, b.emit("mul", off, off), reduction)


@lower("aten.mse_loss_backward.default")
def _mse_backward(b: Importer, dy: Value, x: Value, y: Value, reduction: int) -> Value:
    off = b.apply("mul", b.emit("sub", x, y), 2)
    return b.emit("mul", off, _share(b, dy, x, reduction))


@lower("aten.smooth_l1_loss.default")
def _smooth_l1(
    b: Importer, x: Value, y: Value, reduction: int = _MEAN, beta: float = 1
) -> Value:
    off = b.emit("abs", b.emit("sub", x, y))
    if beta == 0:
        return _reduced(b, off, reduction)
    near = b.apply("mul", b.emit("mul", off, off), 0.5 / beta)
    far = b.apply("sub", off, 0.5 * beta)
    return _reduced(b, b.where(b.apply("lt", off, beta), near, far), reduction)


@lower("aten.smooth_l1_loss_backward.default")
def _smooth_l1_backward(
    b: Importer, dy: Value, x: Value, y: Value, reduction: int, beta: float
) -> Value:
    off = b.emit("sub", x, y)
    slope = b.emit("sign", off)
    if beta != 0:
        near = b.apply("lt", b.emit("abs", off), beta)
        slope = b.where(near, b.apply("mul", off, 1 / beta), slope)
    return b.emit("mul", slope, _share(b, dy, x, reduction))


@lower("aten.huber_loss.default")
def _huber(b: Importer, x: Value, y: Value, reduction: int = _MEAN, delta: float = 1) -> Value:
    off = b.emit("abs", b.emit("sub", x, y))
    near = b.apply("mul", b.emit("mul", off, off), 0.5)
    far = b.apply("mul", b.apply("sub", off, 0.5 * delta), delta)
    return _reduced(b, b.where(b.apply("le", off, delta), near, far), reduction)


@lower("aten.huber_loss_backward.default")
def _huber_backward(
    b: Importer, dy: Value, x: Value, y: Value, reduction: int, delta: float
) -> Value:
    off = b.emit("sub", x, y)
    clipped = b.apply("minimum", b.apply("maximum", off, -delta), delta)
    return b.emit("mul", clipped, _share(b, dy, x, reduction))


@lower("aten.binary_cross_entropy_with_logits.default")
def _bce_logits(
    b: Importer,
    x: Value,
    y: Value,
    weight: Value | None = None,
    pos_weight: Value | None = None,
    reduction: int = _MEAN,
) -> Value:
    soft = soft_maximum(b, b.emit("neg", x))
    if pos_weight is not None:
        factor = b.emit("mul", b.apply("sub", pos_weight, 1), y)
        soft = b.emit("mul", soft, b.apply("add", factor, 1))
    loss = b.emit("add", b.emit("mul", b.apply("sub", 1, y), x), soft)
    return _reduced(b, loss if weight is None else b.emit("mul", loss, weight), reduction)


@lower("aten.binary_cross_entropy.default")
def _bce(
    b: Importer, x: Value, y: Value, weight: Value | None = None, reduction: int = _MEAN
) -> Value:
    """Logarithms are no less than -100, as in torch."""
    yes = b.apply("maximum", b.emit("log", x), -100)
    no = b.apply("maximum", b.emit("log", b.apply("sub", 1, x)), -100)
    likely = b.emit("add", b.emit("mul", y, yes), b.emit("mul", b.apply("sub", 1, y), no))
    loss = b.emit("neg", likely)
    return _reduced(b, loss if weight is None else b.emit("mul", loss, weight), reduction)


@lower("aten.binary_cross_entropy_backward.default")
def _bce_backward(
    b: Importer,
    dy: Value,
    x: Value,
    y: Value,
    weight: Value | None = None,
    reduction: int = _MEAN,
) -> Value:
    spread = b.apply("maximum", b.emit("mul", x, b.apply("sub", 1, x)), 1e-12)
    slope = b.emit("div", b.emit("sub", x, y), spread)
    slope = slope if weight is None else b.emit("mul", slope, weight)
    return b.emit("mul", slope, _share(b, dy, x, reduction))


def _classes_last(b: Importer, x: Value) -> tuple[Value, tuple[int, ...]]:
    """Return (N, C, ...) as (N, ..., C), and the permutation that undoes it."""
    rank = len(b.shape(x))
    axis = 1 if rank > 1 else 0
    perm = (*(d for d in range(rank) if d != axis), axis)
    back = tuple(perm.index(d) for d in range(rank))
    return b.permute(x, perm), back


def _hits(b: Importer, labels: Value, classes: int) -> Value:
    """Return for every label and class whether it is that class."""
    column = b.reshape(labels, (*b.shape(labels), 1))
    line = b.iota((classes,), 0, b.type_of(labels).dtype)
    return b.emit("eq", column, line)


def _label_weights(
    b: Importer, x: Value, hits: Value, labels: Value, weight: Value | None, ignored: int
) -> Value:
    """Return what every label counts: 0 if it is ignored, else its class's weight."""
    dtype = b.type_of(x).dtype
    counts = b.to(b.apply("ne", labels, ignored), dtype)
    if weight is None:
        return counts
    rank = len(b.shape(hits))
    own = b.reduce("reduce_sum", b.where(hits, weight, 0, dtype), (rank - 1,))
    return b.emit("mul", own, counts)


@lower("aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default")
def _nll(
    b: Importer, x: Value, labels: Value, weight: Value | None, reduction: int, ignored: int
) -> tuple[Value, Value]:
    last, _ = _classes_last(b, x)
    rank = len(b.shape(last))
    hits = _hits(b, labels, b.shape(last)[-1])
    own = b.reduce("reduce_sum", b.where(hits, last, 0), (rank - 1,))
    weights = _label_weights(b, last, hits, labels, weight, ignored)
    losses = b.emit("neg", b.emit("mul", own, weights))
    axes = tuple(range(len(b.shape(losses))))
    total = b.reduce("reduce_sum", weights, axes)
    if reduction == _NONE:
        return losses, b.scalar(0, b.type_of(x).dtype)
    loss = b.reduce("reduce_sum", losses, axes)
    return (b.emit("div", loss, total) if reduction == _MEAN else loss), total


@lower("aten.nll_loss_backward.default", "aten.nll_loss2d_backward.default")
def _nll_backward(
    b: Importer,
    dy: Value,
    x: Value,
    labels: Value,
    weight: Value | None,
    reduction: int,
    ignored: int,
    total: Value,
) -> Value:
    last, back = _classes_last(b, x)
    hits = _hits(b, labels, b.shape(last)[-1])
    weights = _label_weights(b, last, hits, labels, weight, ignored)
    share = b.emit("div", dy, total) if reduction == _MEAN else dy
    each = b.emit("neg", b.emit("mul", share, weights))
    each = b.reshape(each, (*b.shape(each), 1))
    return b.permute(b.expand(b.where(hits, each, 0), b.shape(last)), back)
