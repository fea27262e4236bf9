"""Bodies in which every element depends on the same element of each operand, loops merged.

Neighbouring dimensions that lie in one piece in every operand become one: a tensor of shape
(512, 10) is a line of 5120 elements, whatever its layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pockc import ops
from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import (
    At,
    Computed,
    Index,
    Scope,
    Source,
    Stored,
    Values,
    inline,
)
from pockc.errors import InternalError, Problem
from pockc.ir.graph import Graph
from pockc.ir.types import TensorType
from pockc.ops import OpKind


@dataclass(frozen=True, eq=False, slots=True)
class Pointwise:
    """The values of an elementwise body on one merged index that all of them share."""

    body: Graph
    leaves: Mapping[str, Stored]

    def type_of(self, name: str) -> TensorType:
        """Return the type of a value, unmerged."""
        return self.body.type_of(name)

    def aligned(self, name: str, index: Index) -> Index:  # noqa: ARG002
        """Return the index of an operand: the same."""
        return index

    def at(self, scope: Scope, name: str, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element of a value at a merged index."""
        if name in scope.fixed:
            return scope.fixed[name]
        key = (name, tuple(map(id, index)), id(guard))
        if key in scope.memo:
            return scope.memo[key][1]
        if name in self.leaves:
            value = self.leaves[name].at(scope, index, guard)
        else:
            node = self.body.node(name)
            if node is None:
                raise InternalError(Problem("tvm-no-value", f"%{name} is not at hand"))
            value = inline[node.op](At(self, scope, node, index, guard))
        value = scope.code.bind(value)
        scope.memo[key] = ((index, guard), value)
        return value


@dataclass(frozen=True, eq=False, slots=True)
class PointwiseSource:
    """A value of an elementwise body, with merged dimensions."""

    type: TensorType
    values: Pointwise
    name: str

    def at(self, scope: Scope, index: Index, guard: Expr | None = None) -> Expr:
        """Return the element at a merged index."""
        return self.values.at(scope, self.name, index, guard)


def pointwise(b: Builder, values: Values, output: str, result: Stored) -> bool:
    """Write an elementwise body with merged loops; return whether it is one."""
    leaves = elementwise_leaves(values, output)
    if leaves is None:
        return False
    shape = result.type.shape
    everything = [result, *leaves.values()]
    groups = merge_groups(everything, shape, result.type.order)
    merged = merged_space(everything, shape, groups)
    if merged is None:
        return False
    inside = Pointwise(values.body, dict(zip(leaves, merged[1:], strict=True)))

    def element(scope: Scope, index: Index) -> None:
        value = inside.at(scope, output, index)
        where = merged[0].offset(index)
        where = scope.code.const(where) if isinstance(where, int) else where
        scope.code.emit(result.memory.store(where, value))

    b.injective(merged[0].type, cost(values), element)
    return True


def cost(values: Values) -> int:
    """Return the simple operations per element of a body."""
    return sum(16 if n.op in DEAR else 1 for n in values.body.nodes) + 1


DEAR = frozenset(
    {"exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow", "random_uniform"}
)
"""Elementwise ops that cost much more than a load."""


def elementwise_leaves(
    values: Values, output: str, stop: str | None = None
) -> dict[str, Stored] | None:
    """Return the memory that an elementwise value reads, None if it is not purely elementwise.

    Args:
        values: The body.
        output: The value in question.
        stop: A value that is at hand and not looked into.
    """
    leaves: dict[str, Stored] = {}
    seen: set[str] = set()
    open_values = [output]
    while open_values:
        name = open_values.pop()
        if name in seen or name == stop:
            continue
        seen.add(name)
        source = values.source(name)
        if isinstance(source, Stored):
            leaves[name] = source
            continue
        node = values.body.node(name)
        if node is None or name in values.known:
            return None
        if node.op == "full" or ops.get(node.op).kind is OpKind.ELEMENTWISE:
            open_values += node.inputs
        else:
            return None
    return leaves


def aligned_strides(source: Stored, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a tensor broadcast to a shape."""
    lead = len(shape) - source.type.rank
    own = zip(source.type.shape, source.strides, strict=True)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in own)


def merge_groups(
    tensors: Sequence[Stored], shape: Sequence[int], order: Sequence[int]
) -> list[list[int]]:
    """Return the dimensions in an order of memory, grouped where all tensors allow it."""
    strides = [aligned_strides(t, shape) for t in tensors]
    groups: list[list[int]] = []
    for d in order:
        if shape[d] == 1:
            continue
        last = groups[-1][-1] if groups else None
        if last is not None and all(s[last] == s[d] * shape[d] for s in strides):
            groups[-1].append(d)
        else:
            groups.append([d])
    return groups


def merged_space(
    tensors: Sequence[Stored], shape: Sequence[int], groups: Sequence[Sequence[int]]
) -> list[Stored] | None:
    """Return tensors, broadcast to a shape, with each group of dimensions as one.

    None if a group does not lie in one piece somewhere. Dimensions in no group have size 1.
    """
    sizes = tuple(math.prod(shape[d] for d in g) for g in groups)
    found = []
    for tensor in tensors:
        strides = aligned_strides(tensor, shape)
        own = []
        for group in groups:
            dims = [d for d in group if shape[d] != 1]
            for a, c in itertools.pairwise(dims):
                if strides[a] != strides[c] * shape[c]:
                    return None
            own.append(strides[dims[-1]] if dims else 0)
        merged = TensorType(sizes, tensor.type.dtype)
        found.append(Stored(merged, tensor.memory, tuple(own), tensor.base))
    return found


def merged_source(source: Source, groups: Sequence[Sequence[int]]) -> Source | None:
    """Return a tensor with groups of its dimensions as one each, None if that cannot be."""
    shape = source.type.shape
    if isinstance(source, Stored):
        found = merged_space([source], shape, groups)
        return None if found is None else found[0]
    if not isinstance(source, Computed):
        return None
    leaves = elementwise_leaves(source.values, source.name)
    if leaves is None:
        return None
    found = merged_space(list(leaves.values()), shape, groups)
    if found is None:
        return None
    values = Pointwise(source.values.body, dict(zip(leaves, found, strict=True)))
    sizes = tuple(math.prod(shape[d] for d in g) for g in groups)
    return PointwiseSource(TensorType(sizes, source.type.dtype), values, source.name)


def memory_order(source: Source) -> tuple[int, ...]:
    """Return the dimensions of a tensor as memory holds them, major to minor.

    A computed tensor is read in the order of the largest thing it is made of.
    """
    if isinstance(source, Stored):
        return _by_stride(source, source.type.shape)
    if isinstance(source, Computed):
        leaves = elementwise_leaves(source.values, source.name) or {}
        shape = source.type.shape
        whole = [s for s in leaves.values() if s.type.shape == shape]
        if whole:
            return _by_stride(max(whole, key=lambda s: s.type.dtype.nbytes), shape)
    return source.type.order


def _by_stride(source: Stored, shape: Sequence[int]) -> tuple[int, ...]:
    dims = range(len(shape))
    return tuple(
        sorted(dims, key=lambda d: (-source.strides[d] if shape[d] != 1 else -(1 << 62), d))
    )
