"""Compute cheap values again in backward rather than keep them from the forward pass.

A product wants its operands in memory, and the gradient of its weight reads the same operand
again, at the other end of the step. Where that operand is an elementwise function, or a norm,
of another value that backward needs anyway, only that one is kept: GELU's result is made again
from its operand, a layer norm's from what it normalised (Chen et al., Training Deep Nets with
Sublinear Memory Cost, 2016, §3, for the operations that cost next to nothing).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc import ops
from pockc.ir import Graph, Node
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.ir.views import is_view
from pockc.ops import OpKind
from pockc.ops.base import flops_of
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.fusion_choice import RECOMPUTED_NODES, Expression, kept_expressions
from pockc.passes.fusion_rules import FusionRules
from pockc.passes.rewriting import Rewriter

# Readers further apart than this, in contractions between them, are at two ends of a step.
FAR_CONTRACTIONS = 6
# Operations per element of the contractions that read a value again: what makes one sweep over
# it, with an exponential in it, too little to be seen.
LEAST_FLOPS_PER_ELEMENT = 128
# Operations per element of a product that is repeated as well.
MOST_FLOPS_PER_ELEMENT = 256


@dataclass(frozen=True, slots=True)
class Recompute:
    """Repeat, before its late readers, a value that early ones have read.

        %y = gelu(%h)                         %y = gelu(%h)
        %z = matmul(%y, %w)                   %z = matmul(%y, %w)
        ...                             ->    ...
        %dw = matmul(%yt, %dz)                %y2 = gelu(%h)
        %dh = gelu_gradient(%h, %dy)          %dw = matmul(%y2t, %dz)

    Done where the late readers do much more work than the value is, and where all that it is
    made from is needed until then by others. Attention's weights are made again with the
    scores they come from: from queries and keys and nothing else (Dao et al., FlashAttention,
    NeurIPS 2022, §3.1, without its tiling).

    Attributes:
        rules: What a backend makes one kernel of: what is repeated must be one.
        least_bytes: Smaller values are kept.
    """

    rules: FusionRules = FusionRules()  # noqa: RUF009  immutable
    least_bytes: int = 1 << 16
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with values repeated."""
        late = _Repeats(graph, self).late
        if not late:
            return graph
        rewriter = Rewriter(graph)
        again: dict[str, str] = {}
        for node in graph.nodes:
            inputs = node.inputs
            for read in late.get(node.name, ()):
                if read.value not in again:
                    again[read.value] = _repeat(rewriter, read.expression, read.value, {})
                name = _repeat(
                    rewriter, read.views, read.operand, {read.value: again[read.value]}
                )
                inputs = tuple(name if i == read.operand else i for i in inputs)
            rewriter.append(replace(node, inputs=inputs) if node.name in late else node)
        return EliminateDead()(rewriter.finish())


@dataclass(frozen=True, slots=True)
class _Read:
    """A late reading of a value.

    Attributes:
        value: The value that is made again.
        expression: The nodes that make it, in order.
        operand: What the reader reads: the value, or a view of it.
        views: The nodes from one to the other.
    """

    value: str
    expression: tuple[Node, ...]
    operand: str
    views: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class _Reader:
    """A node that reads a value, through views or not."""

    node: Node
    operand: str
    views: tuple[Node, ...]


class _Repeats:
    """What is repeated, and for whom.

    Attributes:
        late: For each late reader, what it reads that is made again.
    """

    def __init__(self, graph: Graph, options: Recompute) -> None:
        self.late: dict[str, list[_Read]] = {}
        self._graph = graph
        self._index = {n.name: at for at, n in enumerate(graph.nodes)}
        self._contractions = [0]
        for node in graph.nodes:
            heavy = ops.get(node.op).kind is OpKind.CONTRACTION
            self._contractions.append(self._contractions[-1] + heavy)
        self._expressions = kept_expressions(graph, options.rules)
        self._last_use = _last_uses(graph, self._expressions)
        for value in self._expressions:
            if graph.type_of(value).nbytes >= options.least_bytes and self._is_sweep(value):
                self._consider(value)

    def _is_sweep(self, value: str) -> bool:
        """Whether a value is one sweep over one value of its size."""
        expression = self._expressions[value]
        return (
            expression.repeatable
            and len(expression.nodes) <= RECOMPUTED_NODES
            and len(self._large_leaves(value)) == 1
            and value not in self._graph.output_values
            and not is_view(self._graph, self._graph.nodes[self._index[value]])
        )

    def _large_leaves(self, value: str) -> list[str]:
        size = self._graph.type_of(value).size
        leaves = self._expressions[value].leaves
        return [v for v in leaves if 4 * self._graph.type_of(v).size > size]

    def _consider(self, value: str) -> None:
        readers = sorted(self._readers(value), key=lambda r: self._index[r.node.name])
        late = self._after_the_gap(readers)
        if not any(self._is_heavy(r.node, value) for r in late):
            return
        names = self._made_of(value, self._index[late[0].node.name])
        if names is None:
            return
        log.debug("recompute: %%%s again before %%%s", value, late[0].node.name)
        nodes = [n for n in self._graph.nodes if n.name in names]
        for reader in late:
            read = _Read(value, tuple(nodes), reader.operand, reader.views)
            self.late.setdefault(reader.node.name, []).append(read)

    def _made_of(self, value: str, place: int) -> frozenset[str] | None:
        """Return the nodes that make a value from what lives until a place, None if it cannot.

        That may include a product, if it is a small one that nothing else reads.
        """
        nodes = self._expressions[value].nodes
        for leaf in self._expressions[value].leaves:
            if self._lives_until(leaf, place, value):
                continue
            if not self._is_small_product(leaf, nodes):
                return None
            inside = self._expressions[leaf]
            if not all(self._lives_until(v, place, value) for v in inside.leaves):
                return None
            nodes |= inside.nodes
        return nodes

    def _is_small_product(self, leaf: str, readers: frozenset[str]) -> bool:
        """Whether a value is the product of long and narrow matrices, as attention's scores."""
        node = self._graph.nodes[self._index[leaf]]
        return (
            {r.node.name for r in self._readers(leaf)} <= readers
            and leaf not in self._graph.output_values
            and sum(flops_of(self._graph, n) for n in self._nodes_of(leaf))
            <= MOST_FLOPS_PER_ELEMENT * node.type.size
        )

    def _nodes_of(self, value: str) -> Iterator[Node]:
        names = self._expressions[value].nodes
        return (self._graph.nodes[self._index[n]] for n in sorted(names))

    def _readers(self, value: str, views: tuple[Node, ...] = ()) -> list[_Reader]:
        found: list[_Reader] = []
        for user in self._graph.users[value]:
            if is_view(self._graph, user):
                found += self._readers(user.name, (*views, user))
            else:
                found.append(_Reader(user, value, views))
        return found

    def _after_the_gap(self, readers: list[_Reader]) -> list[_Reader]:
        """Return the readers after the widest gap between two, none if there is no wide one."""
        count, at = self._contractions, [self._index[r.node.name] for r in readers]
        gaps = [count[b] - count[a + 1] for a, b in itertools.pairwise(at)]
        widest = max(gaps, default=0)
        return readers[gaps.index(widest) + 1 :] if widest >= FAR_CONTRACTIONS else []

    def _is_heavy(self, reader: Node, value: str) -> bool:
        size = self._graph.type_of(value).size
        return (
            ops.get(reader.op).kind is OpKind.CONTRACTION
            and flops_of(self._graph, reader) >= LEAST_FLOPS_PER_ELEMENT * size
        )

    def _lives_until(self, leaf: str, place: int, value: str) -> bool:
        """Whether a value is needed at a place or later by others, or is no loss to keep."""
        sizes = self._graph.type_of(leaf).size, self._graph.type_of(value).size
        while leaf in self._index and is_view(
            self._graph, self._graph.nodes[self._index[leaf]]
        ):
            leaf = self._graph.nodes[self._index[leaf]].inputs[0]
        if leaf not in self._index or 16 * sizes[0] <= sizes[1]:
            return True
        return self._last_use.get(leaf, 0) >= place

    def _base(self, value: str) -> str:
        """Return what a view is a view of, the value itself if it is none."""
        made = self._graph.node(value)
        while made is not None and is_view(self._graph, made):
            value = made.inputs[0]
            made = self._graph.node(value)
        return value


def _last_uses(graph: Graph, expressions: Mapping[str, Expression]) -> dict[str, int]:
    """Return the place of the last kernel that reads each value, or a view of it."""
    last: dict[str, int] = {}
    for at, node in reversed(list(enumerate(graph.nodes))):
        if node.name not in expressions:
            continue
        used = last.get(node.name, 0) if is_view(graph, node) else at
        for leaf in expressions[node.name].leaves:
            last[leaf] = max(last.get(leaf, 0), used)
    return last


def _repeat(
    rewriter: Rewriter, nodes: tuple[Node, ...], result: str, names: dict[str, str]
) -> str:
    """Add nodes once more, reading `names` for what has another name, and return a result."""
    for node in nodes:
        inputs = tuple(names.get(i, i) for i in node.inputs)
        made = replace(node, name=rewriter.fresh(node.name), inputs=inputs)
        names[node.name] = rewriter.append(made)
    return names[result]
