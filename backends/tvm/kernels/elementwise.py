"""Ops that compute each element alone, and generators."""

from __future__ import annotations

import math

import numpy as np
from tvm import tirx

from pockc.backends.tvm import approx
from pockc.backends.tvm.tir import TVM_DTYPE, Expr, dtype_of
from pockc.backends.tvm.values import At, inline, number
from pockc.ir.types import DType


@inline("neg")
def _neg(at: At) -> Expr:
    return (
        number(0, at.dtype) - at(0) if not at.dtype.is_float else at(0) * number(-1, at.dtype)
    )


@inline("abs")
def _abs(at: At) -> Expr:
    return tirx.abs(at(0))


@inline("exp")
def _exp(at: At) -> Expr:
    return approx.exp(at.scope.code, at(0))


@inline("log")
def _log(at: At) -> Expr:
    return approx.log(at.scope.code, at(0))


@inline("sqrt")
def _sqrt(at: At) -> Expr:
    return tirx.sqrt(at(0))


@inline("rsqrt")
def _rsqrt(at: At) -> Expr:
    return number(1, at.dtype) / tirx.sqrt(at(0))


@inline("tanh")
def _tanh(at: At) -> Expr:
    return approx.tanh(at.scope.code, at(0))


@inline("sigmoid")
def _sigmoid(at: At) -> Expr:
    return approx.sigmoid(at.scope.code, at(0))


@inline("erf")
def _erf(at: At) -> Expr:
    return approx.erf(at.scope.code, at(0))


@inline("sin")
def _sin(at: At) -> Expr:
    return tirx.sin(at(0))


@inline("cos")
def _cos(at: At) -> Expr:
    return tirx.cos(at(0))


@inline("floor")
def _floor(at: At) -> Expr:
    return tirx.floor(at(0))


@inline("sign")
def _sign(at: At) -> Expr:
    x, nothing = at(0), number(0, at.dtype)
    negative = tirx.Select(x < nothing, number(-1, at.dtype), x)  # a NaN stays one
    return tirx.Select(x > nothing, number(1, at.dtype), negative)


@inline("logical_not")
def _logical_not(at: At) -> Expr:
    return tirx.Not(at(0))


@inline("cast")
def _cast(at: At) -> Expr:
    x, old, new = at(0), at.type(0).dtype, at.dtype
    if old is new:
        return x
    if new is DType.B1:
        return x != number(0, old)
    if old is DType.B1:
        return tirx.Select(x, number(1, new), number(0, new))
    return tirx.Cast(TVM_DTYPE[new], x)


@inline("add")
def _add(at: At) -> Expr:
    return at(0) + at(1)


@inline("sub")
def _sub(at: At) -> Expr:
    return at(0) - at(1)


@inline("mul")
def _mul(at: At) -> Expr:
    return at(0) * at(1)


@inline("div")
def _div(at: At) -> Expr:
    return tirx.Div(at(0), at(1))


@inline("pow")
def _pow(at: At) -> Expr:
    x, y = at(0), at(1)
    if at.dtype.is_float:
        return tirx.power(x, y)
    return tirx.Cast(
        TVM_DTYPE[at.dtype], tirx.power(tirx.Cast("float64", x), tirx.Cast("float64", y))
    )


@inline("maximum")
def _maximum(at: At) -> Expr:
    return extreme(at(0), at(1), at.dtype, largest=True)


@inline("minimum")
def _minimum(at: At) -> Expr:
    return extreme(at(0), at(1), at.dtype, largest=False)


def extreme(x: Expr, y: Expr, dtype: DType, *, largest: bool) -> Expr:
    """Return the larger or the smaller of two numbers; a NaN wins, as in NumPy."""
    if isinstance(x, tirx.FloatImm):
        x, y = y, x
    better = y > x if largest else y < x
    if dtype.is_float and not isinstance(y, tirx.FloatImm):
        better = tirx.Or(better, tirx.NE(y, y))
    return tirx.Select(better, y, x)


@inline("mod")
def _mod(at: At) -> Expr:
    x, y = at(0), at(1)
    if not at.dtype.is_float:
        return tirx.floormod(x, y)
    rest = at.scope.code.bind(tirx.Mod(x, y))
    other_sign = tirx.And(tirx.NE(rest, number(0, at.dtype)), tirx.Select(
        rest < number(0, at.dtype), y > number(0, at.dtype), y < number(0, at.dtype)
    ))  # fmt: skip
    return tirx.Select(other_sign, rest + y, rest)


@inline("eq")
def _eq(at: At) -> Expr:
    return tirx.EQ(_comparable(at(0)), _comparable(at(1)))


@inline("ne")
def _ne(at: At) -> Expr:
    return tirx.NE(_comparable(at(0)), _comparable(at(1)))


@inline("lt")
def _lt(at: At) -> Expr:
    return tirx.LT(_comparable(at(0)), _comparable(at(1)))


@inline("le")
def _le(at: At) -> Expr:
    return tirx.LE(_comparable(at(0)), _comparable(at(1)))


@inline("gt")
def _gt(at: At) -> Expr:
    return tirx.GT(_comparable(at(0)), _comparable(at(1)))


@inline("ge")
def _ge(at: At) -> Expr:
    return tirx.GE(_comparable(at(0)), _comparable(at(1)))


def _comparable(x: Expr) -> Expr:
    return tirx.Cast("uint8", x) if dtype_of(x) == "bool" else x


@inline("logical_and")
def _logical_and(at: At) -> Expr:
    return tirx.And(at(0), at(1))


@inline("logical_or")
def _logical_or(at: At) -> Expr:
    return tirx.Or(at(0), at(1))


@inline("where")
def _where(at: At) -> Expr:
    return tirx.Select(at(0), at(1), at(2))


@inline("full")
def _full(at: At) -> Expr:
    return number(at.node.attrs["value"], at.dtype)


@inline("iota")
def _iota(at: At) -> Expr:
    i = at.index[at.node.attrs["axis"]]
    if isinstance(i, int):
        return number(i, at.dtype)
    return tirx.Cast(TVM_DTYPE[at.dtype], i)


@inline("literal")
def _literal(at: At) -> Expr:
    """A chain of selections: literals in bodies are small, others live in the state."""
    array = np.asarray(at.node.attrs["value"].array)
    where = flat(at.index, array.shape)
    items = array.reshape(-1).tolist()
    value = number(items[0], at.dtype)
    if isinstance(where, int):
        return number(items[where], at.dtype)
    for k, item in enumerate(items[1:], 1):
        if item != items[0]:
            value = tirx.Select(tirx.EQ(where, k), number(item, at.dtype), value)
    return value


def flat(index: tuple[Expr, ...], shape: tuple[int, ...]) -> Expr:
    """Return the row-major number of an element."""
    total: Expr = 0
    step = math.prod(shape)
    for i, n in zip(index, shape, strict=True):
        step //= max(n, 1)
        if n != 1:
            total = total + i * step
    return total


@inline("random_uniform")
def _random_uniform(at: At) -> Expr:
    """The counter based generator of pockc/ops/random_uniform.py."""
    code = at.scope.code
    seed = code.bind(at(0, ()))
    low = tirx.Cast("uint32", tirx.bitwise_and(seed, tirx.const(0xFFFFFFFF, "int64")))
    high = tirx.Cast("uint32", tirx.bitwise_and(seed >> 32, tirx.const(0xFFFFFFFF, "int64")))
    salt = tirx.const(at.node.attrs["salt"], "uint32")
    key1 = at.scope.code.cut(_mix(at, low ^ _mix(at, high ^ salt)))
    key2 = at.scope.code.cut(_mix(at, _wrapped(key1, 0x9E3779B9, "add")))
    where = flat(at.index, at.node.type.shape)
    counter = (
        tirx.const(where, "uint32") if isinstance(where, int) else tirx.Cast("uint32", where)
    )
    bits = _mix(at, _mix(at, _wrapped(counter, key1, "add")) ^ key2)
    # Through int32: LLVM converts signed vectors in one instruction.
    upper = tirx.Cast("int32", bits >> tirx.const(8, "uint32"))
    return tirx.Cast("float32", upper) * tirx.const(2.0**-24, "float32")


def _mix(at: At, x: Expr) -> Expr:
    """Return lowbias32 of an unsigned number."""
    x = at.scope.code.cut(x)
    x = at.scope.code.cut(_wrapped(x ^ (x >> tirx.const(16, "uint32")), 0x7FEB352D, "mul"))
    x = at.scope.code.cut(_wrapped(x ^ (x >> tirx.const(15, "uint32")), 0x846CA68B, "mul"))
    return x ^ (x >> tirx.const(16, "uint32"))


def _wrapped(x: Expr, y: Expr | int, how: str) -> Expr:
    """Return a sum or product modulo 2^32.

    TVM tells LLVM that arithmetic never overflows; in 64 bits it does not, and LLVM narrows it.
    """
    wide = tirx.Cast("uint64", x)
    other = tirx.const(y, "uint64") if isinstance(y, int) else tirx.Cast("uint64", y)
    return tirx.Cast("uint32", wide + other if how == "add" else wide * other)
