"""Values as functions of an index: what makes fusion a matter of calling one inside another.

A value of a body is asked for at a logical index, and answers with an expression: a load if it
is stored, else what its op says about the elements it needs. What is computed is named once per
innermost block, so that a value with several uses is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tvm import tirx

from pockc.backends.base import Lowerings
from pockc.backends.tvm.tir import TVM_DTYPE, Code, Expr, Memory
from pockc.errors import InternalError, Problem
from pockc.ir.graph import Graph, Node
from pockc.ir.types import DType, TensorType

Index = tuple[Expr, ...]


class NotVectorizableError(Exception):
    """A condition depends on the vectorised index: the loop must be serial."""


@dataclass(slots=True)
class Scope:
    """What is known inside one block of code.

    Attributes:
        code: Where statements go.
        lane: The vectorised loop variable of the block.
        fixed: Values that the block has at hand, whatever the index: the accumulator of an
            epilogue.
        memo: Values named so far. The index objects are kept: their identity is the key.
    """

    code: Code
    lane: Expr | None = None
    fixed: Mapping[str, Expr] = field(default_factory=dict)
    memo: dict[object, tuple[object, Expr]] = field(default_factory=dict)

    def inner(self, lane: Expr | None = None, fixed: Mapping[str, Expr] | None = None) -> Scope:
        """Return the scope of a block inside: it sees what is known here and adds its own."""
        return Scope(
            self.code,
            self.lane if lane is None else lane,
            {**self.fixed, **(fixed or {})},
            dict(self.memo),
        )

    def guarded(self, condition: Expr, guard: Expr | None) -> Expr | None:
        """Return the conjunction of a condition and the guard around it.

        Raises:
            NotVectorizableError: The condition differs from lane to lane.
        """
        if isinstance(condition, (bool, tirx.IntImm)) and bool(condition):
            return guard
        if self.lane is not None and self.code.depends(condition, self.lane):
            raise NotVectorizableError
        return condition if guard is None else tirx.And(guard, condition)


class Source(Protocol):
    """A tensor that can be read: stored, or computed where it is read."""

    @property
    def type(self) -> TensorType:
        """Its logical type."""
        ...

    def at(self, scope: Scope, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element at a logical index; a false guard forbids the access."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A tensor in memory: element `index` lies at `base + sum(index * strides)`."""

    type: TensorType
    memory: Memory
    strides: tuple[int, ...]
    base: int = 0

    def offset(self, index: Sequence[Expr]) -> Expr:
        """Return where an element lies."""
        total: Expr = self.base
        for i, stride in zip(index, self.strides, strict=True):
            if stride and not (isinstance(i, int) and i == 0):
                total = i * stride + total
        return total

    def at(self, scope: Scope, index: Index, guard: Expr | None = None) -> Expr:
        """Load an element; what a false guard gives does not matter."""
        where = self.offset(index)
        where = scope.code.const(where) if isinstance(where, int) else where
        value = self.memory.load(where)
        if guard is None:
            return value
        return tirx.if_then_else(guard, value, zero(self.type.dtype))


def stored(type: TensorType, memory: Memory) -> Stored:
    """Return a whole buffer as a tensor of a type."""
    return Stored(type, memory, strides_of(type))


def strides_of(type: TensorType) -> tuple[int, ...]:
    """Return by how many elements neighbours along each logical dimension are apart."""
    strides, step = [0] * type.rank, 1
    for d in reversed(type.order):
        strides[d] = step if type.shape[d] != 1 else 0
        step *= type.shape[d]
    return tuple(strides)


def number(value: float, dtype: DType) -> Expr:
    """Return a constant of an element type."""
    if dtype is DType.B1:
        return tirx.const(bool(value), "bool")
    if dtype.is_float:
        return tirx.const(float(value), TVM_DTYPE[dtype])
    return tirx.const(int(value), TVM_DTYPE[dtype])


def zero(dtype: DType) -> Expr:
    """Return the zero of an element type."""
    return number(0, dtype)


class Valuation(Protocol):
    """Gives the values of a body at an index."""

    def type_of(self, name: str) -> TensorType:
        """Return the type of a value."""
        ...

    def aligned(self, name: str, index: Index) -> Index:
        """Return the index of an operand that belongs to an index of an elementwise result."""
        ...

    def at(self, scope: Scope, name: str, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element of a value at an index."""
        ...


class Values:
    """The values of a body as functions of an index."""

    def __init__(self, body: Graph, known: Mapping[str, Source]) -> None:
        """Read what is in `known` from there, and compute the rest as the body says."""
        self.body = body
        self.known = dict(known)

    def type_of(self, name: str) -> TensorType:
        """Return the type of a value."""
        return self.body.type_of(name)

    def aligned(self, name: str, index: Index) -> Index:
        """Return the index of an operand that is broadcast to the index of a result."""
        return index[len(index) - self.type_of(name).rank :]

    def at(self, scope: Scope, name: str, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element of a value at an index of its own shape."""
        if name in scope.fixed:
            return scope.fixed[name]
        shape = self.type_of(name).shape
        index = tuple(0 if n == 1 else i for i, n in zip(index, shape, strict=True))
        key = (name, tuple(map(_key, index)), id(guard))
        if key in scope.memo:
            return scope.memo[key][1]
        value = scope.code.bind(self._compute(scope, name, index, guard))
        scope.memo[key] = ((index, guard), value)
        return value

    def remember(self, scope: Scope, name: str, index: Index, value: Expr) -> None:
        """Let a block know the element of a value at an index."""
        scope.memo[(name, tuple(map(_key, index)), id(None))] = ((index, None), value)

    def _compute(self, scope: Scope, name: str, index: Index, guard: Expr | None) -> Expr:
        if name in self.known:
            return self.known[name].at(scope, index, guard)
        node = self.body.node(name)
        if node is None or node.op not in inline:
            raise InternalError(Problem("tvm-no-value", f"%{name} is not at hand"))
        return inline[node.op](At(self, scope, node, index, guard))

    def source(self, name: str) -> Source:
        """Return a value as something to read; plain memory where it can be seen as that."""
        plain = _as_memory(self, name)
        return Computed(self, name) if plain is None else plain


@dataclass(frozen=True, eq=False, slots=True)
class Computed:
    """A value of a body that is computed where it is read."""

    values: Values
    name: str

    @property
    def type(self) -> TensorType:
        """Its logical type."""
        return self.values.type_of(self.name)

    def at(self, scope: Scope, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element at an index."""
        return self.values.at(scope, self.name, index, guard)


@dataclass(frozen=True, eq=False, slots=True)
class At:
    """A node at one index: what a rule of `inline` computes.

    Calling it gives operand `i`, by default at the same index with broadcasting.
    """

    values: Valuation
    scope: Scope
    node: Node
    index: Index
    guard: Expr | None

    def __call__(self, i: int, index: Index | None = None, guard: Expr | None = None) -> Expr:
        """Return operand `i` at an index of it; `guard` replaces the guard in force."""
        name = self.node.inputs[i]
        if index is None:
            index = self.values.aligned(name, self.index)
        kept = self.guard if guard is None else guard
        return self.values.at(self.scope, name, index, kept)

    def type(self, i: int) -> TensorType:
        """Return the type of operand `i`."""
        return self.values.type_of(self.node.inputs[i])

    def when(self, condition: Expr) -> Expr | None:
        """Return the guard for reading an operand under a condition."""
        return self.scope.guarded(condition, self.guard)

    @property
    def dtype(self) -> DType:
        """The element type of the result."""
        return self.node.type.dtype


InlineRule = Callable[[At], Expr]
inline: Lowerings[InlineRule] = Lowerings("tvm")
"""Ops whose elements are computed wherever they are needed: `@inline("add")`."""


def _key(index: Expr) -> int | str:
    return index if isinstance(index, int) else f"at{id(index)}"


def _as_memory(values: Values, name: str) -> Stored | None:
    """Return a value as strided memory, looking through ops that only move indices."""
    if name in values.known:
        found = values.known[name]
        return found if isinstance(found, Stored) else None
    node = values.body.node(name)
    if node is None or node.op not in _SEEN_THROUGH:
        return None
    operand = _as_memory(values, node.inputs[0])
    return None if operand is None else _SEEN_THROUGH[node.op](node, operand)


def _permuted(node: Node, x: Stored) -> Stored:
    perm = node.attrs["perm"]
    return Stored(node.type, x.memory, tuple(x.strides[d] for d in perm), x.base)


def _relaid(node: Node, x: Stored) -> Stored:
    return Stored(node.type, x.memory, x.strides, x.base)


def _sliced(node: Node, x: Stored) -> Stored:
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    base = x.base + sum(a * s for a, s in zip(starts, x.strides, strict=True))
    strides = tuple(a * s for a, s in zip(steps, x.strides, strict=True))
    return Stored(node.type, x.memory, strides, base)


def _broadcasted(node: Node, x: Stored) -> Stored:
    lead = node.type.rank - x.type.rank
    strides = (0,) * lead + tuple(
        0 if n == 1 else s for n, s in zip(x.type.shape, x.strides, strict=True)
    )
    return Stored(node.type, x.memory, strides, x.base)


def _reshaped(node: Node, x: Stored) -> Stored | None:
    strides = reshaped_strides(x.type.shape, x.strides, node.type.shape)
    return None if strides is None else Stored(node.type, x.memory, strides, x.base)


_SEEN_THROUGH: Mapping[str, Callable[[Node, Stored], Stored | None]] = {
    "permute": _permuted,
    "relayout": _relaid,
    "slice": _sliced,
    "broadcast_to": _broadcasted,
    "reshape": _reshaped,
}


def reshaped_strides(
    old: Sequence[int], strides: Sequence[int], new: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the strides of a reshape of strided memory, None if there are none.

    Dimensions are merged where they lie in one piece, as NumPy does for a view.
    """
    pieces = [(n, s) for n, s in zip(old, strides, strict=True) if n != 1]
    merged: list[tuple[int, int]] = []
    for n, s in pieces:
        if merged and merged[-1][1] == s * n:
            merged[-1] = (merged[-1][0] * n, s)
        else:
            merged.append((n, s))
    result = [0] * len(new)
    at = len(new)
    for n, s in reversed(merged):
        step, left = s, n
        while left > 1:
            at -= 1
            if at < 0 or left % new[at]:
                return None
            result[at] = step if new[at] != 1 else 0
            step, left = step * new[at], left // new[at]
    return tuple(result) if math.prod(new[:at]) == 1 else None
