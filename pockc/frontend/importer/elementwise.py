"""Arithmetic, comparison, selection and conversion, element by element."""

from __future__ import annotations

import math

from pockc.frontend.importer.base import (
    Importer,
    Number,
    Operand,
    Unsupported,
    Value,
    lower,
    promoted,
)
from pockc.ir import DType


@lower("aten.add.Tensor", "aten.add.Scalar")
def _add(b: Importer, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return b.apply("add", x, _scaled(b, y, alpha), dtype=b.out.dtype)


@lower("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(b: Importer, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return b.apply("sub", x, _scaled(b, y, alpha), dtype=b.out.dtype)


@lower("aten.rsub.Scalar", "aten.rsub.Tensor")
def _rsub(b: Importer, x: Operand, y: Operand, alpha: Number = 1) -> Value:
    return b.apply("sub", y, _scaled(b, x, alpha), dtype=b.out.dtype)


def _scaled(b: Importer, x: Operand, alpha: Number) -> Operand:
    if alpha == 1:
        return x
    return b.apply("mul", x, alpha, dtype=b.out.dtype) if isinstance(x, Value) else x * alpha


@lower("aten.mul.Scalar")
def _mul(b: Importer, x: Operand, y: Operand) -> Value:
    return b.apply("mul", x, y, dtype=b.out.dtype)


@lower("aten.div.Scalar")
def _div(b: Importer, x: Operand, y: Operand) -> Value:
    return b.apply("div", x, y, dtype=b.out.dtype)


@lower("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _div_mode(b: Importer, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return b.apply("div", x, y, dtype=b.out.dtype)
    # Integers below 2^53 are exact in f64.
    wide = b.out.dtype if b.out.dtype.is_float else DType.F64
    quotient = b.apply("div", x, y, dtype=wide)
    whole = b.emit("floor", quotient) if rounding_mode == "floor" else _truncated(b, quotient)
    return b.to(whole, b.out.dtype)


@lower("aten.floor_divide.default", "aten.floor_divide.Scalar")
def _floor_divide(b: Importer, x: Operand, y: Operand) -> Value:
    return _div_mode(b, x, y, "floor")


@lower("aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def _remainder(b: Importer, x: Operand, y: Operand) -> Value:
    return b.apply("mod", x, y, dtype=b.out.dtype)


@lower("aten.fmod.Tensor", "aten.fmod.Scalar")
def _fmod(b: Importer, x: Operand, y: Operand) -> Value:
    wide = b.out.dtype if b.out.dtype.is_float else DType.F64
    whole = _truncated(b, b.apply("div", x, y, dtype=wide))
    return b.to(b.apply("sub", x, b.apply("mul", whole, y), dtype=wide), b.out.dtype)


@lower("aten.pow.Tensor_Scalar")
def _pow(b: Importer, x: Value, exponent: Number) -> Value:
    return power(b, b.to(x, b.out.dtype), exponent)


def power(b: Importer, x: Value, exponent: Number) -> Value:
    """Return a power with a fixed exponent, by products and roots where there are few."""
    if exponent == 0:
        return b.full(1, b.type_of(x))
    if exponent == 0.5:
        return b.emit("sqrt", x)
    if exponent == -0.5:
        return b.emit("rsqrt", x)
    if exponent < 0 and b.type_of(x).dtype.is_float and exponent == int(exponent):
        return b.apply("div", 1, power(b, x, -exponent))
    if exponent in (1, 2, 3, 4):
        square = b.emit("mul", x, x) if exponent > 1 else x
        return {1: x, 2: square}.get(int(exponent)) or b.emit(
            "mul", square, x if exponent == 3 else square
        )
    return b.apply("pow", x, exponent)


@lower("aten.pow.Scalar")
def _pow_scalar(b: Importer, base: Number, exponent: Value) -> Value:
    return b.apply("pow", base, exponent, dtype=b.out.dtype)


@lower("aten.square.default")
def _square(b: Importer, x: Value) -> Value:
    return b.apply("mul", x, x, dtype=b.out.dtype)


@lower("aten.reciprocal.default")
def _reciprocal(b: Importer, x: Value) -> Value:
    return b.apply("div", 1, x, dtype=b.out.dtype)


@lower("aten.addcmul.default")
def _addcmul(b: Importer, x: Value, y: Value, z: Value, value: Number = 1) -> Value:
    product = b.apply("mul", y, z, dtype=b.out.dtype)
    return b.apply("add", x, _scaled(b, product, value), dtype=b.out.dtype)


@lower("aten.addcdiv.default")
def _addcdiv(b: Importer, x: Value, y: Value, z: Value, value: Number = 1) -> Value:
    quotient = b.apply("div", _scaled(b, y, value), z, dtype=b.out.dtype)
    return b.apply("add", x, quotient, dtype=b.out.dtype)


@lower("aten.lerp.Scalar", "aten.lerp.Tensor")
def _lerp(b: Importer, x: Value, end: Value, weight: Operand) -> Value:
    span = b.apply("sub", end, x, dtype=b.out.dtype)
    if isinstance(weight, Value) or abs(weight) < 0.5:
        return b.apply("add", x, b.apply("mul", span, weight, dtype=b.out.dtype))
    return b.apply("sub", end, b.apply("mul", span, 1 - weight), dtype=b.out.dtype)


@lower("aten.clamp.default", "aten.clamp.Tensor", "aten.hardtanh.default")
def _clamp(
    b: Importer, x: Value, low: Operand | None = None, high: Operand | None = None
) -> Value:
    y = b.to(x, b.out.dtype)
    if low is not None:
        y = b.apply("maximum", y, low)
    return y if high is None else b.apply("minimum", y, high)


@lower("aten.clamp_min.default", "aten.clamp_min.Tensor")
def _clamp_min(b: Importer, x: Value, low: Operand) -> Value:
    return _clamp(b, x, low)


@lower("aten.clamp_max.default", "aten.clamp_max.Tensor")
def _clamp_max(b: Importer, x: Value, high: Operand) -> Value:
    return _clamp(b, x, None, high)


@lower("aten.log2.default")
def _log2(b: Importer, x: Value) -> Value:
    return b.apply("mul", b.apply("log", x, dtype=b.out.dtype), 1 / math.log(2))


@lower("aten.log10.default")
def _log10(b: Importer, x: Value) -> Value:
    return b.apply("mul", b.apply("log", x, dtype=b.out.dtype), 1 / math.log(10))


@lower("aten.log1p.default")
def _log1p(b: Importer, x: Value) -> Value:
    """log(1 + x), corrected for the digits that 1 + x drops (Goldberg 1991, theorem 4)."""
    x = b.to(x, b.out.dtype)
    y = b.apply("add", x, 1)
    rest = b.apply("sub", y, 1)
    exact = b.apply("div", b.apply("mul", b.emit("log", y), x), rest)
    return b.where(b.apply("eq", rest, 0), x, b.where(b.apply("eq", y, math.inf), y, exact))


@lower("aten.expm1.default")
def _expm1(b: Importer, x: Value) -> Value:
    """exp(x) - 1 as tanh(x/2) * (exp(x) + 1), which keeps the digits of a small x."""
    x = b.to(x, b.out.dtype)
    e = b.emit("exp", x)
    small = b.apply("mul", b.emit("tanh", b.apply("mul", x, 0.5)), b.apply("add", e, 1))
    return b.where(b.apply("lt", b.emit("abs", x), 1.0), small, b.apply("sub", e, 1))


@lower("aten.exp2.default")
def _exp2(b: Importer, x: Value) -> Value:
    return b.emit("exp", b.apply("mul", x, math.log(2), dtype=b.out.dtype))


@lower("aten.erfc.default")
def _erfc(b: Importer, x: Value) -> Value:
    return b.apply("sub", 1, b.apply("erf", x, dtype=b.out.dtype))


@lower("aten.xlogy.Tensor", "aten.xlogy.Scalar_Other", "aten.xlogy.Scalar_Self")
def _xlogy(b: Importer, x: Operand, y: Operand) -> Value:
    x, y = b.to(x, b.out.dtype), b.to(y, b.out.dtype)
    return b.where(b.apply("eq", x, 0), 0, b.emit("mul", x, b.emit("log", y)))


@lower("aten.tan.default")
def _tan(b: Importer, x: Value) -> Value:
    x = b.to(x, b.out.dtype)
    return b.apply("div", b.emit("sin", x), b.emit("cos", x))


@lower("aten.ceil.default")
def _ceil(b: Importer, x: Value) -> Value:
    return b.emit("neg", b.emit("floor", b.emit("neg", x)))


@lower("aten.trunc.default")
def _trunc(b: Importer, x: Value) -> Value:
    return _truncated(b, x)


def _truncated(b: Importer, x: Value) -> Value:
    return b.apply("mul", b.emit("sign", x), b.emit("floor", b.emit("abs", x)))


@lower("aten.round.default")
def _round(b: Importer, x: Value) -> Value:
    """To the nearest whole number, halves to the even one."""
    up = b.emit("floor", b.apply("add", x, 0.5))
    half = b.apply("eq", b.apply("sub", up, x), 0.5)
    odd = b.apply("ne", b.apply("mod", up, 2.0), 0.0)
    return b.where(b.emit("logical_and", half, odd), b.apply("sub", up, 1.0), up)


def _compare(op: str, *names: str) -> None:
    @lower(*names)
    def _handler(b: Importer, x: Operand, y: Operand) -> Value:
        return b.apply(op, x, y, dtype=promoted(b, x, y))


for _op in ("eq", "ne", "lt", "le", "gt", "ge"):
    _compare(_op, f"aten.{_op}.Scalar")


@lower("aten.isnan.default")
def _isnan(b: Importer, x: Value) -> Value:
    return b.emit("ne", x, x)


@lower("aten.isinf.default")
def _isinf(b: Importer, x: Value) -> Value:
    return b.apply("eq", b.emit("abs", x), math.inf)


@lower("aten.logical_xor.default")
def _logical_xor(b: Importer, x: Value, y: Value) -> Value:
    return b.apply("ne", x, y, dtype=DType.B1)


def _bits(op: str, *names: str) -> None:
    @lower(*names)
    def _handler(b: Importer, *operands: Operand) -> Value:
        if b.out.dtype is not DType.B1:
            raise Unsupported("works on the bits of integers, which is not supported")
        return b.apply(op, *operands, dtype=DType.B1)


for _op, _aten in (("logical_and", "and"), ("logical_or", "or"), ("ne", "xor")):
    _bits(_op, f"aten.bitwise_{_aten}.Tensor", f"aten.bitwise_{_aten}.Scalar")
_bits("logical_not", "aten.bitwise_not.default")


@lower(
    "aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar"
)
def _where(b: Importer, condition: Value, x: Operand, y: Operand) -> Value:
    return b.where(b.to(condition, DType.B1), x, y, b.out.dtype)


@lower("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(b: Importer, x: Value, mask: Value, value: Operand) -> Value:
    return b.where(mask, value, x, b.out.dtype)


@lower("aten._to_copy.default", "prims.convert_element_type.default")
def _to_copy(b: Importer, x: Value, *_: object, **__: object) -> Value:
    return b.to(x, b.out.dtype)


@lower(
    "aten.clone.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.contiguous.default",
    "aten.positive.default",
)
def _same(_: Importer, x: Value, *__: object, **___: object) -> Value:
    return x


@lower("aten.copy.default")
def _copy(b: Importer, x: Value, source: Value, *_: object) -> Value:
    return b.expand(b.to(source, b.out.dtype), b.shape(x))
