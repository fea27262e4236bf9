"""Random numbers: pure functions of the step's seed and of a number given to each use."""

from __future__ import annotations

import math

from pockc.frontend.importer.base import Importer, Number, Value, lower
from pockc.ir import DType


@lower("aten.native_dropout.default")
def _dropout(b: Importer, x: Value, p: float, train: bool | None) -> tuple[Value, Value]:
    """The mask is a value of its own: forward and backward read the same one."""
    if train is False:
        return x, b.full(1, b.type_of(x).with_dtype(DType.B1))
    kept = b.apply("ge", b.random(b.shape(x)), p)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    return b.where(kept, b.apply("mul", x, scale), 0), kept


@lower("aten.native_dropout_backward.default")
def _dropout_backward(b: Importer, dy: Value, kept: Value, scale: float) -> Value:
    return b.where(kept, b.apply("mul", dy, scale), 0)


@lower("aten.bernoulli.p", "aten.bernoulli.default")
def _bernoulli(b: Importer, x: Value, p: float | None = None, **_: object) -> Value:
    limit = b.to(x, DType.F32) if p is None else p
    return b.to(b.apply("lt", b.random(b.shape(x)), limit, dtype=DType.F32), b.out.dtype)


@lower("aten.rand.default", "aten.rand_like.default")
def _rand(b: Importer, *_: object, **__: object) -> Value:
    return b.to(b.random(b.out.shape), b.out.dtype)


@lower("aten.uniform.default")
def _uniform(b: Importer, _: Value, low: Number = 0, high: Number = 1, **__: object) -> Value:
    unit = b.to(b.random(b.out.shape), b.out.dtype)
    return b.apply("add", b.apply("mul", unit, high - low), low)


@lower("aten.exponential.default")
def _exponential(b: Importer, _: Value, rate: Number = 1, **__: object) -> Value:
    unit = b.to(b.random(b.out.shape), b.out.dtype)
    return b.apply("mul", b.emit("log", b.apply("sub", 1, unit)), -1 / rate)


@lower("aten.randn.default", "aten.randn_like.default")
def _randn(b: Importer, *_: object, **__: object) -> Value:
    return b.to(_normal(b), b.out.dtype)


@lower("aten.normal_functional.default")
def _normal_functional(
    b: Importer, _: Value, mean: Number = 0, std: Number = 1, **__: object
) -> Value:
    unit = b.to(_normal(b), b.out.dtype)
    return b.apply("add", b.apply("mul", unit, std), mean)


def _normal(b: Importer) -> Value:
    """Normally distributed numbers (Box and Muller 1958); 1 - u keeps the logarithm finite."""
    u, v = b.random(b.out.shape), b.random(b.out.shape)
    radius = b.emit("sqrt", b.apply("mul", b.emit("log", b.apply("sub", 1, u)), -2))
    return b.emit("mul", radius, b.emit("cos", b.apply("mul", v, 2 * math.pi)))
