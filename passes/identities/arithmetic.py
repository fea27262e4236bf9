"""Identities of elementwise arithmetic.

Those that re-associate constants may differ in the last bit; the others are exact but for the
sign of zero.
"""

from __future__ import annotations

import math

from pockc.ir import DType, Node
from pockc.passes.identities.simplifier import Rule, Simplifier


def constant_right(s: Simplifier, n: Node) -> str | None:
    """C + x -> x + c, and c * x -> x * c."""
    a, b = n.inputs
    if s.constant(a) is None or s.constant(b) is not None:
        return None
    return s.again(n, b, a)


def neutral(s: Simplifier, n: Node) -> str | None:
    """X + 0, x - 0, x * 1, x / 1 and x ** 1 -> x."""
    c = s.constant(n.inputs[1])
    if c is None or isinstance(c, bool):
        return None
    if c == (0 if n.op in ("add", "sub") else 1):
        return s.expanded(n.inputs[0], n.type, n.source)
    return None


def add_of_negative(s: Simplifier, n: Node) -> str | None:
    """X + -y -> x - y, and -x + y -> y - x."""
    a, b = n.inputs
    if found := s.made_by(b, "neg"):
        return s.build("sub", a, found.inputs[0], source=n.source)
    if found := s.made_by(a, "neg"):
        return s.build("sub", b, found.inputs[0], source=n.source)
    return None


def sub_of_negative(s: Simplifier, n: Node) -> str | None:
    """X - -y -> x + y, and 0 - x -> -x."""
    a, b = n.inputs
    if found := s.made_by(b, "neg"):
        return s.build("add", a, found.inputs[0], source=n.source)
    if s.constant(a) == 0 and n.type.dtype.is_float:
        return s.expanded(s.build("neg", b, source=n.source), n.type, n.source)
    return None


def sub_of_constant(s: Simplifier, n: Node) -> str | None:
    """X - c -> x + -c."""
    c = s.constant(n.inputs[1])
    if c is None or not n.type.dtype.is_float:
        return None
    return s.build("add", n.inputs[0], s.scalar(-c, n.type.dtype), source=n.source)


def constant_chain(s: Simplifier, n: Node) -> str | None:
    """(x + c) + d -> x + (c + d), and so for products."""
    inner = s.made_by(n.inputs[0], n.op)
    d = s.constant(n.inputs[1])
    if inner is None or d is None or not n.type.dtype.is_float:
        return None
    c = s.constant(inner.inputs[1])
    if c is None:
        return None
    # In the precision of the tensor, as the two steps would have been.
    number = n.type.dtype.np.type
    both = float(number(c) + number(d) if n.op == "add" else number(c) * number(d))
    if not math.isfinite(both):
        return None
    x = s.expanded(inner.inputs[0], n.type, n.source)
    return s.build(n.op, x, s.scalar(both, n.type.dtype), source=n.source)


def product_of_negative(s: Simplifier, n: Node) -> str | None:
    """-x * -y -> x * y; -x * c -> x * -c; x * -1 -> -x."""
    a, b = n.inputs
    c = s.constant(b)
    left, right = s.made_by(a, "neg"), s.made_by(b, "neg")
    if left and right:
        return s.build("mul", left.inputs[0], right.inputs[0], source=n.source)
    if c == -1 and n.type.dtype.is_float:
        x = s.expanded(a, n.type, n.source)
        return s.build("neg", x, source=n.source)
    if left and c is not None:
        return s.build("mul", left.inputs[0], s.scalar(-c, n.type.dtype), source=n.source)
    return None


def quotient_by_power_of_two(s: Simplifier, n: Node) -> str | None:
    """X / 2^k -> x * 2^-k, exactly."""
    c = s.constant(n.inputs[1])
    if c is None or not n.type.dtype.is_float or c == 0 or not math.isfinite(c):
        return None
    if abs(math.frexp(c)[0]) != 0.5:
        return None
    return s.build("mul", n.inputs[0], s.scalar(1 / c, n.type.dtype), source=n.source)


def quotient_by_root(s: Simplifier, n: Node) -> str | None:
    """1 / sqrt(x) -> rsqrt(x)."""
    root = s.made_by(n.inputs[1], "sqrt")
    if root is None or s.constant(n.inputs[0]) != 1:
        return None
    return s.expanded(s.build("rsqrt", root.inputs[0], source=n.source), n.type, n.source)


def power(s: Simplifier, n: Node) -> str | None:
    """Powers 2, 3, 1/2 and -1/2 of floating point numbers without pow."""
    x, exponent = n.inputs[0], s.constant(n.inputs[1])
    if exponent is None or not n.type.dtype.is_float:
        return None
    x = s.expanded(x, n.type, n.source)
    match float(exponent):
        case 2.0:
            return s.build("mul", x, x, source=n.source)
        case 3.0:
            return s.build("mul", s.build("mul", x, x, source=n.source), x, source=n.source)
        case 0.5:
            return s.build("sqrt", x, source=n.source)
        case -0.5:
            return s.build("rsqrt", x, source=n.source)
        case _:
            return None


def negative(s: Simplifier, n: Node) -> str | None:
    """--x -> x; -(x - y) -> y - x; -(x * c) -> x * -c."""
    inner = s.node_of(n.inputs[0])
    if inner is None:
        return None
    if inner.op == "neg":
        return inner.inputs[0]
    if inner.op == "sub":
        return s.build("sub", inner.inputs[1], inner.inputs[0], source=n.source)
    c = s.constant(inner.inputs[1]) if inner.op == "mul" else None
    if c is not None:
        return s.build("mul", inner.inputs[0], s.scalar(-c, n.type.dtype), source=n.source)
    return None


def same_twice(_s: Simplifier, n: Node) -> str | None:
    """max(x, x), min(x, x), x and x, x or x -> x."""
    return n.inputs[0] if n.inputs[0] == n.inputs[1] else None


def absolute(s: Simplifier, n: Node) -> str | None:
    """||x|| -> |x|, and |-x| -> |x|."""
    inner = s.node_of(n.inputs[0])
    if inner is not None and inner.op == "abs":
        return inner.name
    if inner is not None and inner.op == "neg":
        return s.build("abs", inner.inputs[0], source=n.source)
    return None


# What not(a op b) is. An order is negated for integers only: a nan is neither below nor above.
_NEGATED = {"eq": "ne", "ne": "eq"}
_NEGATED_ORDER = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


def negation(s: Simplifier, n: Node) -> str | None:
    """Not not x -> x, not (a = b) -> a != b, not (a < b) -> a >= b for integers."""
    inner = s.node_of(n.inputs[0])
    if inner is None:
        return None
    if inner.op == "logical_not":
        return inner.inputs[0]
    op = _NEGATED.get(inner.op)
    if op is None and inner.inputs and s.type_of(inner.inputs[0]).dtype.is_integer:
        op = _NEGATED_ORDER.get(inner.op)
    return None if op is None else s.build(op, *inner.inputs, source=n.source)


def logical_constant(s: Simplifier, n: Node) -> str | None:
    """X and true -> x, x and false -> false; likewise or."""
    for x, y in (n.inputs, n.inputs[::-1]):
        c = s.constant(y)
        if c is None:
            continue
        if bool(c) == (n.op == "logical_and"):
            return s.expanded(x, n.type, n.source)
        return s.full(bool(c), n.type, n.source)
    return None


def selection(s: Simplifier, n: Node) -> str | None:
    """Where of a constant, of two equal values, or of a negation."""
    condition, a, b = n.inputs
    c = s.constant(condition)
    if c is not None:
        return s.expanded(a if c else b, n.type, n.source)
    if a == b:
        return s.expanded(a, n.type, n.source)
    if found := s.made_by(condition, "logical_not"):
        return s.build("where", found.inputs[0], b, a, source=n.source)
    return None


def conversion(s: Simplifier, n: Node) -> str | None:
    """Casts to the same type, of constants, and after a lossless cast."""
    x, dtype = n.inputs[0], n.type.dtype
    if s.type_of(x).dtype is dtype:
        return x
    if (full := s.made_by(x, "full")) is not None:
        value = dtype.np.type(full.type.dtype.np.type(full.attrs["value"])).item()
        return s.full(value, n.type, n.source)
    inner = s.made_by(x, "cast")
    if inner is not None and _lossless(s.type_of(inner.inputs[0]).dtype, inner.type.dtype):
        return s.build("cast", inner.inputs[0], dtype=dtype, source=n.source)
    return None


_WIDER = {
    DType.B1: (DType.U8, DType.I8, DType.I16, DType.I32, DType.I64, DType.F32, DType.F64),
    DType.U8: (DType.I16, DType.I32, DType.I64, DType.F32, DType.F64),
    DType.I8: (DType.I16, DType.I32, DType.I64, DType.F32, DType.F64),
    DType.I16: (DType.I32, DType.I64, DType.F32, DType.F64),
    DType.I32: (DType.I64, DType.F64),
    DType.F16: (DType.F32, DType.F64),
    DType.BF16: (DType.F32, DType.F64),
    DType.F32: (DType.F64,),
}


def _lossless(narrow: DType, wide: DType) -> bool:
    return wide in _WIDER.get(narrow, ())


RULES: dict[str, tuple[Rule, ...]] = {
    "add": (constant_right, neutral, add_of_negative, constant_chain),
    "sub": (neutral, sub_of_negative, sub_of_constant),
    "mul": (constant_right, neutral, product_of_negative, constant_chain),
    "div": (neutral, quotient_by_power_of_two, quotient_by_root),
    "pow": (neutral, power),
    "neg": (negative,),
    "abs": (absolute,),
    "maximum": (same_twice,),
    "minimum": (same_twice,),
    "logical_and": (same_twice, logical_constant),
    "logical_or": (same_twice, logical_constant),
    "logical_not": (negation,),
    "where": (selection,),
    "cast": (conversion,),
}
