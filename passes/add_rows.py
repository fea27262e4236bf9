"""Add the rows of an embedding's gradient to its weights, not a gradient of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pockc.ir import Graph, Node, state_written
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter


@dataclass(frozen=True, slots=True)
class AddRows:
    """Add to state only the rows that a batch has touched.

        %g = take_grad(%dy, %i) {axis=0, size=30522}      %t = mul(%lr, %dy)
        %d = mul(%lr, %g)                            ->   %m = neg(%t)
        %w2 = sub(%w, %d)                                 %w2 = index_add(%w, %m, %i)

    So a step of plain SGD, or the sum over micro-batches, neither makes nor reads a gradient
    of the whole table. What keeps a momentum of every row needs all of it, and is left alone.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with sums of rows."""
        found = [s for o in graph.outputs if (s := _sum(graph, o.value)) is not None]
        if not found:
            return graph
        sums = {s.node.name: s for s in found}
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            if node.name not in sums:
                rewriter.keep(node)
                continue
            log.debug(
                "add_rows: %%%s adds rows of %%%s", node.name, sums[node.name].scatter.name
            )
            rewriter.replace(node.name, _emit(rewriter, sums[node.name]))
        return EliminateDead()(rewriter.finish())


@dataclass(frozen=True, slots=True)
class _Sum:
    """A new value of state that is the old one and some multiple of scattered rows.

    Attributes:
        node: The sum.
        state: The old value.
        scatter: The `take_grad`.
        factors: What its result is multiplied with, numbers all.
        negative: Whether it is subtracted.
    """

    node: Node
    state: str
    scatter: Node
    factors: tuple[str, ...]
    negative: bool


def _sum(graph: Graph, value: str) -> _Sum | None:
    node = graph.node(value)
    if node is None or node.op not in ("add", "sub"):
        return None
    sides = [node.inputs] if node.op == "sub" else [node.inputs, node.inputs[::-1]]
    for state, change in sides:
        if not _is_renewed(graph, state, value):
            continue
        scatter, factors = _scattered(graph, change)
        if scatter is not None and graph.type_of(scatter.inputs[0]).size < node.type.size:
            return _Sum(node, state, scatter, factors, node.op == "sub")
    return None


def _is_renewed(graph: Graph, state: str, value: str) -> bool:
    """Whether a value replaces this state, and nothing else does."""
    roles = [
        role for o in graph.outputs if o.value == value and (role := state_written(o.role))
    ]
    homes = [home.name for role in roles if (home := graph.input_of(role)) is not None]
    return homes == [state]


def _scattered(graph: Graph, value: str) -> tuple[Node | None, tuple[str, ...]]:
    """Return the scatter behind a value that nobody else reads, and its factors."""
    factors: list[str] = []
    while True:
        node = graph.node(value)
        if node is None or len(graph.users[value]) != 1 or value in graph.output_values:
            return None, ()
        if node.op == "take_grad":
            return (node if node.attrs["axis"] == 0 else None), tuple(factors)
        number = next((i for i in node.inputs if graph.type_of(i).shape == ()), None)
        if node.op != "mul" or number is None:
            return None, ()
        factors.append(number)
        value = next(i for i in node.inputs if i != number)


def _emit(rewriter: Rewriter, found: _Sum) -> str:
    scatter = found.scatter
    rows, index = (rewriter.now(i) for i in scatter.inputs)
    for factor in found.factors:
        rows = rewriter.emit("mul", rows, rewriter.now(factor), source=scatter.source)
    if found.negative:
        rows = rewriter.emit("neg", rows, source=scatter.source)
    return rewriter.emit(
        "index_add",
        rewriter.now(found.state),
        rows,
        index,
        name=found.node.name,
        source=found.node.source,
    )
