"""Compute at compile time what depends on frozen tensors only.

The main case is frozen batch norm, ((y - mean) * rsqrt(var + eps)) * gamma + beta after a
convolution: it becomes one factor and one term per channel, and the factor goes into the
filters if they are frozen too (Jacob et al., CVPR 2018, §3.2). What is left is an addition in
the convolution's epilogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from pockc import ops
from pockc.ir import Buffer, Graph, Input, Node, Param, Source
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.ops import OpKind
from pockc.ops.base import evaluate
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter

# A known tensor this much smaller than what it meets is a factor or term "per channel".
SMALL_RATIO = 8


@dataclass(frozen=True, slots=True)
class FoldFrozen:
    """Evaluate what depends on frozen tensors only, and fold factors into frozen filters.

        %d = sub(%y, %mean)               %w2 = literal() {value=w * gamma * rsqrt(var + eps)}
        %e = mul(%d, %rstd)               %y2 = conv2d(%x, %w2)
        %f = mul(%e, %gamma)       ->     %g = add(%y2, %shift)
        %g = add(%f, %beta)

    A frozen tensor stays an input: it is part of the model even if no entry reads it any more.
    Nothing is folded that would make an artifact hold more: a filter is replaced only where
    every node of the graph that reads it can do with the folded one.

    Attributes:
        values: The frozen parameters and buffers by qualified name.
        held: Parameters that another entry reads as they are; those are not folded.
        limit_bytes: Results up to this size become constants whatever they are made of.
    """

    values: Mapping[str, np.ndarray] = field(repr=False, compare=False)
    held: frozenset[str] = frozenset()
    limit_bytes: int = 1 << 16
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with frozen subgraphs computed."""
        folder = _Folder(graph, self)
        for node in graph.nodes:
            folder.visit(node)
        made = EliminateDead()(folder.finish())
        return _fold_filters(made, self)


def known_input(given: Input, options: FoldFrozen) -> np.ndarray | None:
    """Return the value of a frozen input, None if it is not frozen."""
    if isinstance(given.role, (Param, Buffer)):
        return options.values.get(given.role.name)
    return None


class _Folder(Rewriter):
    """One walk that knows the values of frozen tensors and what they make."""

    def __init__(self, graph: Graph, options: FoldFrozen) -> None:
        super().__init__(graph)
        self._options = options
        self.known: dict[str, np.ndarray] = {}
        self._literals: dict[str, str] = {}
        for given in graph.inputs:
            value = known_input(given, options)
            if value is not None:
                self.known[given.name] = value

    def visit(self, old: Node) -> None:
        node = self.here(old)
        if self._is_known(node):
            self.known[node.name] = evaluate(node, [self.known[i] for i in node.inputs])
            self.append(node)
            return
        inputs = tuple(self._operand(i) for i in node.inputs)
        node = node if inputs == node.inputs else replace(node, inputs=inputs)
        if node.op in ("add", "sub", "mul"):
            self.replace(old.name, self._affine(node))
        else:
            self.append(node)

    def _is_known(self, node: Node) -> bool:
        if not all(i in self.known for i in node.inputs):
            return False
        given = sum(self.known[i].nbytes for i in node.inputs)
        return node.type.nbytes <= max(given, 1 << 20)

    def _operand(self, value: str) -> str:
        """Return the constant that stands for a known operand, or the operand itself."""
        node = self.node_of(value)
        if value not in self.known or node is None:
            return value
        kind = ops.get(node.op).kind
        if kind is OpKind.GENERATOR or self._is_view_of_input(node):
            return value
        array = self.known[value]
        if array.size == 1 and all(self.node_of(i) is not None for i in node.inputs):
            return value
        if array.nbytes > max(self._options.limit_bytes, self._replaced_bytes(value)):
            return value
        return self.constant(array, node.source)

    def _is_view_of_input(self, node: Node) -> bool:
        at: Node | None = node
        while at is not None and at.op in ("reshape", "permute"):
            at = self.node_of(at.inputs[0])
        return at is None

    def _replaced_bytes(self, value: str) -> int:
        """Return the bytes of the frozen inputs that only this value reads."""
        total, waiting = 0, [value]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            node = self.node_of(name)
            if node is not None:
                waiting += [i for i in node.inputs if i not in seen]
                seen.update(node.inputs)
            elif len(self.graph.users[name]) == 1:
                total += self.known[name].nbytes
        return total

    def constant(self, array: np.ndarray, source: Source | None = None) -> str:
        """Return a literal of known content; equal ones are one value."""
        made = self.literal(array, "frozen")
        literal = self.nodes[-1].attrs["value"]
        if literal.digest in self._literals:
            self.nodes.pop()
            return self._literals[literal.digest]
        self.nodes[-1] = replace(self.nodes[-1], source=source)
        self._literals[literal.digest] = made
        self.known[made] = array
        return made

    def _small(self, value: str, node: Node) -> np.ndarray | None:
        """Return a known operand that is one number per channel, or so."""
        array = self.known.get(value)
        if array is None or array.size <= 1 or array.size * SMALL_RATIO > node.type.size:
            return None
        return array if node.type.dtype.is_float else None

    def _affine(self, node: Node) -> str:
        """Bring a chain of known factors and terms into the form x * a + b."""
        x, c = node.inputs
        constant = self._small(c, node)
        if constant is None and node.op != "sub":
            x, c = c, x
            constant = self._small(c, node)
        if constant is None or self.type_of(x).shape != node.type.shape:
            return self.append(node)
        log.debug("fold_frozen: %%%s = %s with a known tensor", node.name, node.op)
        if node.op == "mul":
            return self._scaled(node, x, constant)
        return self._shifted(node, x, -constant if node.op == "sub" else constant)

    def _scaled(self, node: Node, x: str, factor: np.ndarray) -> str:
        """(x * a + b) * c -> x * (a c) + b c."""
        inner, term = self._split(x, "add", node)
        base, before = self._split(inner, "mul", node)
        if before is not None:
            factor = _rounded(before.astype(np.float64) * factor, factor)
        if term is None:
            return self._put(node, "mul", base, factor)
        shift = _rounded(term.astype(np.float64) * self.known[self._factor_of(node, x)], term)
        scaled = self.emit("mul", base, self.constant(factor), source=node.source)
        return self._put(node, "add", scaled, shift)

    def _factor_of(self, node: Node, x: str) -> str:
        return node.inputs[1] if node.inputs[0] == x else node.inputs[0]

    def _shifted(self, node: Node, x: str, term: np.ndarray) -> str:
        """(x + b) + c -> x + (b + c)."""
        inner, before = self._split(x, "add", node)
        if before is not None:
            term = _rounded(before.astype(np.float64) + term, term)
        return self._put(node, "add", inner, term)

    def _split(self, x: str, op: str, node: Node) -> tuple[str, np.ndarray | None]:
        """Return (y, c) if x is y `op` c with a known c, else (x, None)."""
        made = self.node_of(x)
        if made is None or made.op != op or made.type.shape != node.type.shape:
            return x, None
        constant = self._small(made.inputs[1], node)
        if constant is None or self.type_of(made.inputs[0]).shape != node.type.shape:
            return x, None
        return made.inputs[0], constant

    def _put(self, node: Node, op: str, x: str, constant: np.ndarray) -> str:
        """Add `x op constant` under the name of the node that it stands for."""
        operands = (x, self.constant(constant, node.source))
        if node.op == op and node.inputs == operands:
            return self.append(node)
        return self.append(replace(node, op=op, inputs=operands))


def _rounded(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(array, like.dtype)


def _fold_filters(graph: Graph, options: FoldFrozen) -> Graph:
    """Fold the known factor behind each convolution of frozen filters into the filters."""
    factors: dict[str, np.ndarray] = {}
    for given in graph.inputs:
        value = known_input(given, options)
        if value is None or value.ndim != 4 or _name(given) in options.held:
            continue
        factor = _common_factor(graph, given.name)
        if factor is not None:
            factors[given.name] = factor
            log.debug("fold_frozen: factors into %%%s", given.name)
    if not factors:
        return graph
    rewriter = Rewriter(graph)
    filters = {
        given.name: _scaled_filters(options.values[_name(given)], factors[given.name])
        for given in graph.inputs
        if given.name in factors
    }
    folded = {
        name: rewriter.literal(array, f"{name}_folded") for name, array in filters.items()
    }
    for old in graph.nodes:
        node = rewriter.here(old)
        if node.op in _READERS and node.inputs[1] in folded:
            operand = node.inputs[0]
            if node.op == "conv2d_grad_input":
                operand = rewriter.node_of(operand).inputs[0]  # type: ignore[union-attr]
            node = replace(node, inputs=(operand, folded[node.inputs[1]]))
        made = graph.node(old.inputs[0]) if old.op == "mul" else None
        if made is not None and made.op == "conv2d" and made.inputs[1] in folded:
            rewriter.replace(old.name, node.inputs[0])
            continue
        rewriter.append(node)
    return EliminateDead()(rewriter.finish())


_READERS = ("conv2d", "conv2d_grad_input")


def _name(given: Input) -> str:
    return given.role.name if isinstance(given.role, (Param, Buffer)) else ""


def _scaled_filters(filters: np.ndarray, factor: np.ndarray) -> np.ndarray:
    scaled = filters.astype(np.float64) * factor.astype(np.float64).reshape(-1, 1, 1, 1)
    return _rounded(scaled, filters)


def _common_factor(graph: Graph, filters: str) -> np.ndarray | None:
    """Return the factor per channel that every reader of some filters multiplies with."""
    common: np.ndarray | None = None
    if filters in graph.output_values:
        return None
    for node in graph.users[filters]:
        if node.op not in _READERS or node.inputs[0] == filters:
            return None
        factor = (
            _factor_behind(graph, node) if node.op == "conv2d" else _factor_before(graph, node)
        )
        if factor is None or (common is not None and not np.array_equal(factor, common)):
            return None
        common = factor
    return common


def _factor_behind(graph: Graph, node: Node) -> np.ndarray | None:
    """Return the factor of a convolution's result, if that alone reads it."""
    users = graph.users[node.name]
    if len(users) != 1 or users[0].op != "mul" or node.name in graph.output_values:
        return None
    return _per_channel(graph, users[0], node.name)


def _factor_before(graph: Graph, node: Node) -> np.ndarray | None:
    """Return the factor of the gradient that a convolution carries back."""
    made = graph.node(node.inputs[0])
    return (
        None if made is None or made.op != "mul" else _per_channel(graph, made, made.inputs[0])
    )


def _per_channel(graph: Graph, product: Node, image: str) -> np.ndarray | None:
    if product.inputs[0] != image or product.inputs[1] == image:
        return None
    constant = graph.node(product.inputs[1])
    if constant is None or constant.op != "literal":
        return None
    array: np.ndarray = constant.attrs["value"].array
    shape = (1,) * (4 - array.ndim) + array.shape
    return array if shape == (1, product.type.shape[1], 1, 1) else None
