"""Exponential and relatives in plain arithmetic, so that they vectorise.

LLVM turns a vector of `exp` into one call of the C library per element. These are the usual
polynomials on reduced arguments (Cephes, Moshier 1992; the rational forms of tanh and erf are
those of Eigen), good to a few units in the last place. Infinities and NaN come out right.
Double precision goes to the C library.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from pockc.backends.tvm.tir import Code, Expr, dtype_of


def exp(code: Code, x: Expr) -> Expr:
    """Return e to the x: 2^n times a polynomial of the rest, |rest| <= ln(2) / 2."""
    if dtype_of(x) != "float32":
        return tirx.exp(x)
    x = code.bind(x)
    inside = code.cut(_clamped(x, -104.0, 89.0))
    n = code.bind(tirx.floor(inside * _f(1.44269504088896341) + _f(0.5)))
    r = code.bind(n * _f(-0.693359375) + inside)
    r = code.cut(n * _f(2.12194440e-4) + r)
    p = _horner(
        code,
        r,
        (
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ),
    )
    y = code.bind(p * (r * r) + r + _f(1.0))
    # Two halves of the exponent: the result may be subnormal, or just below infinity.
    k = code.cut(tirx.Cast("int32", n))
    half = code.cut(k >> 1)
    return y * _power_of_two(half) * _power_of_two(k - half)


def log(code: Code, x: Expr) -> Expr:
    """Return the natural logarithm: a polynomial on [sqrt(1/2), sqrt(2)] and the exponent."""
    if dtype_of(x) != "float32":
        return tirx.log(x)
    x = code.bind(x)
    tiny = x < _f(1.1754944e-38)
    normal = code.cut(tirx.Select(tiny, x * _f(8388608.0), x))
    bits = tirx.reinterpret("int32", normal)
    e = code.cut((bits - 0x3F3504F3) >> 23)
    f = code.cut(tirx.reinterpret("float32", bits - (e << 23)) - _f(1.0))
    k = code.bind(tirx.Cast("float32", e) - tirx.Select(tiny, _f(23.0), _f(0.0)))
    z = code.bind(f * f)
    p = _horner(
        code,
        f,
        (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ),
    )
    y = code.bind(k * _f(-2.12194440e-4) + f * z * p - z * _f(0.5))
    value = code.bind(k * _f(0.693359375) + (f + y))
    value = tirx.Select(x < _f(float("inf")), value, x)
    value = tirx.Select(x > _f(0.0), value, tirx.Select(x < _f(0.0), _f(float("nan")), value))
    return tirx.Select(tirx.EQ(x, _f(0.0)), _f(float("-inf")), value)


def tanh(code: Code, x: Expr) -> Expr:
    """Return the hyperbolic tangent: a rational function of odd degree 13 over 6."""
    if dtype_of(x) != "float32":
        return tirx.tanh(x)
    x = code.bind(x)
    inside = code.cut(_clamped(x, -7.90531110763549805, 7.90531110763549805))
    z = code.bind(inside * inside)
    top = _horner(
        code,
        z,
        (
            -2.76076847742355e-16,
            2.00018790482477e-13,
            -8.60467152213735e-11,
            5.12229709037114e-08,
            1.48572235717979e-05,
            6.37261928875436e-04,
            4.89352455891786e-03,
        ),
    )
    bottom = _horner(
        code,
        z,
        (
            1.19825839466702e-06,
            1.18534705686654e-04,
            2.26843463243900e-03,
            4.89352518554385e-03,
        ),
    )
    small = tirx.And(x < _f(0.0004), x > _f(-0.0004))
    return tirx.Select(small, x, inside * top / bottom)


def sigmoid(code: Code, x: Expr) -> Expr:
    """Return 1 / (1 + e^-x)."""
    one = tirx.const(1.0, dtype_of(x))
    return one / (one + exp(code, tirx.const(0.0, dtype_of(x)) - x))


def erf(code: Code, x: Expr) -> Expr:
    """Return the error function: a rational function of odd degree 13 over 8 on [-4, 4]."""
    if dtype_of(x) != "float32":
        return tirx.erf(x)
    x = code.bind(x)
    inside = code.cut(_clamped(x, -4.0, 4.0))
    z = code.bind(inside * inside)
    top = _horner(
        code,
        z,
        (
            -2.72614225801306e-10,
            2.77068142495902e-08,
            -2.10102402082508e-06,
            -5.69250639462346e-05,
            -7.34990630326855e-04,
            -2.95459980854025e-03,
            -1.60960333262415e-02,
        ),
    )
    bottom = _horner(
        code,
        z,
        (
            -1.45660718464996e-05,
            -2.13374055278905e-04,
            -1.68282697438203e-03,
            -7.37332916720468e-03,
            -1.42647390514189e-02,
        ),
    )
    return inside * top / bottom


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _horner(code: Code, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Return a polynomial, highest power first."""
    total = _f(coefficients[0])
    for c in coefficients[1:]:
        total = code.bind(total * x + _f(c))
    return total


def _clamped(x: Expr, low: float, high: float) -> Expr:
    """Return x between two bounds; a NaN stays one."""
    return tirx.Select(x < _f(low), _f(low), tirx.Select(x > _f(high), _f(high), x))


def _power_of_two(n: Expr) -> Expr:
    return tirx.reinterpret("float32", (n + 127) << 23)
