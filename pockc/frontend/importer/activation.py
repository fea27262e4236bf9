"""Activation functions and their gradients, by the formulas of torch's kernels."""

from __future__ import annotations

import math

from pockc.frontend.importer.base import Importer, Number, Unsupported, Value, lower

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715


@lower("aten.relu.default")
def _relu(b: Importer, x: Value) -> Value:
    return b.apply("maximum", x, 0)


@lower("aten.threshold.default")
def _threshold(b: Importer, x: Value, threshold: Number, value: Number) -> Value:
    return b.where(b.apply("le", x, threshold), value, x)


@lower("aten.threshold_backward.default")
def _threshold_backward(b: Importer, dy: Value, x: Value, threshold: Number) -> Value:
    return b.where(b.apply("le", x, threshold), 0, dy)


@lower("aten.hardtanh_backward.default")
def _hardtanh_backward(b: Importer, dy: Value, x: Value, low: Number, high: Number) -> Value:
    inside = b.emit("logical_and", b.apply("gt", x, low), b.apply("lt", x, high))
    return b.where(inside, dy, 0)


@lower("aten.hardsigmoid.default")
def _hardsigmoid(b: Importer, x: Value) -> Value:
    return b.apply("div", _clipped(b, x), 6)


@lower("aten.hardsigmoid_backward.default")
def _hardsigmoid_backward(b: Importer, dy: Value, x: Value) -> Value:
    inside = b.emit("logical_and", b.apply("gt", x, -3), b.apply("lt", x, 3))
    return b.where(inside, b.apply("mul", dy, 1 / 6), 0)


@lower("aten.hardswish.default")
def _hardswish(b: Importer, x: Value) -> Value:
    return b.apply("div", b.emit("mul", x, _clipped(b, x)), 6)


@lower("aten.hardswish_backward.default")
def _hardswish_backward(b: Importer, dy: Value, x: Value) -> Value:
    slope = b.apply("add", b.apply("div", x, 3), 0.5)
    upper = b.where(b.apply("lt", x, 3), b.emit("mul", dy, slope), dy)
    return b.where(b.apply("le", x, -3), 0, upper)


def _clipped(b: Importer, x: Value) -> Value:
    return b.apply("minimum", b.apply("maximum", b.apply("add", x, 3), 0), 6)


@lower("aten.leaky_relu.default")
def _leaky_relu(b: Importer, x: Value, slope: Number) -> Value:
    return b.where(b.apply("gt", x, 0), x, b.apply("mul", x, slope))


@lower("aten.leaky_relu_backward.default")
def _leaky_relu_backward(b: Importer, dy: Value, x: Value, slope: Number, _: bool) -> Value:
    return b.where(b.apply("gt", x, 0), dy, b.apply("mul", dy, slope))


@lower("aten._prelu_kernel.default")
def _prelu(b: Importer, x: Value, weight: Value) -> Value:
    return b.where(b.apply("gt", x, 0), x, b.emit("mul", weight, x))


@lower("aten._prelu_kernel_backward.default")
def _prelu_backward(b: Importer, dy: Value, x: Value, weight: Value) -> tuple[Value, Value]:
    above = b.apply("gt", x, 0)
    dx = b.where(above, dy, b.emit("mul", weight, dy))
    return dx, b.where(above, 0, b.emit("mul", x, dy))


@lower("aten.elu.default")
def _elu(b: Importer, x: Value, alpha: Number, scale: Number, input_scale: Number) -> Value:
    e = b.emit("exp", b.apply("mul", x, input_scale))
    below = b.apply("mul", b.apply("sub", e, 1), alpha * scale)
    return b.where(b.apply("gt", x, 0), b.apply("mul", x, scale), below)


@lower("aten.celu.default")
def _celu(b: Importer, x: Value, alpha: Number = 1) -> Value:
    return _elu(b, x, alpha, 1, 1 / alpha)


@lower("aten.elu_backward.default")
def _elu_backward(
    b: Importer,
    dy: Value,
    alpha: Number,
    scale: Number,
    input_scale: Number,
    is_result: bool,
    x: Value,
) -> Value:
    if is_result:
        slope = b.apply("mul", b.apply("add", x, alpha * scale), input_scale)
    else:
        e = b.emit("exp", b.apply("mul", x, input_scale))
        slope = b.apply("mul", e, input_scale * alpha * scale)
    below = b.emit("mul", dy, slope)
    return b.where(b.apply("le", x, 0), below, b.apply("mul", dy, scale))


@lower("aten.gelu.default")
def _gelu(b: Importer, x: Value, approximate: str = "none") -> Value:
    if approximate == "tanh":
        inner = b.emit("tanh", _tanh_argument(b, x))
    else:
        inner = b.emit("erf", b.apply("mul", x, _SQRT_HALF))
    return b.emit("mul", b.apply("mul", x, 0.5), b.apply("add", inner, 1))


@lower("aten.gelu_backward.default")
def _gelu_backward(b: Importer, dy: Value, x: Value, approximate: str = "none") -> Value:
    half = b.apply("mul", x, 0.5)
    if approximate == "tanh":
        t = b.emit("tanh", _tanh_argument(b, x))
        square = b.emit("mul", x, x)
        slope = b.apply(
            "mul", b.apply("add", b.apply("mul", square, 3 * _TANH_CUBE), 1), _TANH_SCALE
        )
        rest = b.emit("mul", b.apply("sub", 1, b.emit("mul", t, t)), slope)
        left = b.apply("mul", b.apply("add", t, 1), 0.5)
        return b.emit("mul", dy, b.emit("add", left, b.emit("mul", half, rest)))
    cdf = b.apply("mul", b.apply("add", b.emit("erf", b.apply("mul", x, _SQRT_HALF)), 1), 0.5)
    density = b.emit("exp", b.emit("neg", b.emit("mul", half, x)))
    pdf = b.apply("mul", density, 1 / math.sqrt(2 * math.pi))
    return b.emit("mul", dy, b.emit("add", cdf, b.emit("mul", x, pdf)))


def _tanh_argument(b: Importer, x: Value) -> Value:
    cube = b.emit("mul", b.emit("mul", x, x), x)
    return b.apply("mul", b.emit("add", x, b.apply("mul", cube, _TANH_CUBE)), _TANH_SCALE)


@lower("aten.silu.default")
def _silu(b: Importer, x: Value) -> Value:
    return b.emit("mul", x, b.emit("sigmoid", x))


@lower("aten.silu_backward.default")
def _silu_backward(b: Importer, dy: Value, x: Value) -> Value:
    s = b.emit("sigmoid", x)
    slope = b.apply("add", b.emit("mul", x, b.apply("sub", 1, s)), 1)
    return b.emit("mul", dy, b.emit("mul", s, slope))


@lower("aten.sigmoid_backward.default")
def _sigmoid_backward(b: Importer, dy: Value, y: Value) -> Value:
    return b.emit("mul", dy, b.emit("mul", y, b.apply("sub", 1, y)))


@lower("aten.tanh_backward.default")
def _tanh_backward(b: Importer, dy: Value, y: Value) -> Value:
    return b.emit("mul", dy, b.apply("sub", 1, b.emit("mul", y, y)))


@lower("aten.softplus.default")
def _softplus(b: Importer, x: Value, beta: Number = 1, threshold: Number = 20) -> Value:
    z = b.apply("mul", x, beta)
    soft = b.apply("div", soft_maximum(b, z), beta)
    return b.where(b.apply("gt", z, threshold), x, soft)


@lower("aten.softplus_backward.default")
def _softplus_backward(
    b: Importer, dy: Value, x: Value, beta: Number, threshold: Number
) -> Value:
    z = b.apply("mul", x, beta)
    return b.where(b.apply("gt", z, threshold), dy, b.emit("mul", dy, b.emit("sigmoid", z)))


def soft_maximum(b: Importer, z: Value) -> Value:
    """Return log(1 + exp(z)), which no z makes overflow."""
    rest = b.emit("log", b.apply("add", b.emit("exp", b.emit("neg", b.emit("abs", z))), 1))
    return b.emit("add", b.apply("maximum", z, 0), rest)


@lower("aten.mish.default")
def _mish(b: Importer, x: Value) -> Value:
    return b.emit("mul", x, b.emit("tanh", soft_maximum(b, x)))


@lower("aten.mish_backward.default")
def _mish_backward(b: Importer, dy: Value, x: Value) -> Value:
    t = b.emit("tanh", soft_maximum(b, x))
    bend = b.emit("mul", b.emit("sigmoid", x), b.apply("sub", 1, b.emit("mul", t, t)))
    return b.emit("mul", dy, b.emit("add", t, b.emit("mul", x, bend)))


@lower("aten.log_sigmoid_forward.default")
def _log_sigmoid(b: Importer, x: Value) -> tuple[Value, None]:
    return b.emit("neg", soft_maximum(b, b.emit("neg", x))), None


@lower("aten.log_sigmoid_backward.default")
def _log_sigmoid_backward(b: Importer, dy: Value, x: Value, _: object) -> Value:
    return b.emit("mul", dy, b.emit("sigmoid", b.emit("neg", x)))


@lower("aten.softshrink.default", "aten.hardshrink.default")
def _shrink(b: Importer, x: Value, bound: Number = 0.5) -> Value:
    outside = b.apply("gt", b.emit("abs", x), bound)
    if "soft" in str(b.node.target):
        moved = b.emit("sub", x, b.apply("mul", b.emit("sign", x), bound))
        return b.where(outside, moved, 0)
    return b.where(outside, x, 0)


@lower("aten.softshrink_backward.default", "aten.hardshrink_backward.default")
def _shrink_backward(b: Importer, dy: Value, x: Value, bound: Number) -> Value:
    return b.where(b.apply("gt", b.emit("abs", x), bound), dy, 0)


@lower("aten.glu.default")
def _glu(b: Importer, x: Value, dim: int = -1) -> Value:
    a, gate = _halves(b, x, dim)
    return b.emit("mul", a, b.emit("sigmoid", gate))


@lower("aten.glu_backward.default")
def _glu_backward(b: Importer, dy: Value, x: Value, dim: int) -> Value:
    a, gate = _halves(b, x, dim)
    s = b.emit("sigmoid", gate)
    da = b.emit("mul", dy, s)
    dgate = b.emit("mul", b.emit("mul", da, a), b.apply("sub", 1, s))
    return b.emit("concat", da, dgate, axis=dim % len(b.shape(x)))


def _halves(b: Importer, x: Value, dim: int) -> tuple[Value, Value]:
    shape = b.shape(x)
    axis = dim % len(shape)
    if shape[axis] % 2:
        raise Unsupported("needs an even number of channels")
    middle = shape[axis] // 2
    starts, ones = (0,) * len(shape), (1,) * len(shape)
    stop = tuple(middle if d == axis else n for d, n in enumerate(shape))
    start = tuple(middle if d == axis else 0 for d in range(len(shape)))
    first = b.emit("slice", x, starts=starts, stops=stop, steps=ones)
    return first, b.emit("slice", x, starts=start, stops=shape, steps=ones)
