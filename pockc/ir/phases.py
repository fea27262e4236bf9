"""Where the forward pass of a training step ends, told from the graph alone."""

from __future__ import annotations

from collections.abc import Iterable

from pockc.ir.graph import Graph
from pockc.ir.roles import Gradient, Loss, StateUpdate, Update


def ancestors(graph: Graph, values: Iterable[str]) -> frozenset[str]:
    """Return the values and all that they are computed from, inputs included."""
    found = set(values)
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return frozenset(found)


def forward_nodes(graph: Graph) -> frozenset[str]:
    """Return the nodes that the loss is computed by; empty without a loss."""
    loss = graph.output_of(Loss())
    if loss is None:
        return frozenset()
    return ancestors(graph, [loss.value]) & {n.name for n in graph.nodes}


def renewed(graph: Graph) -> list[str]:
    """Return what the backward pass and the optimizer give.

    A running mean is new state as well, but of the forward pass.
    """
    return [
        o.value for o in graph.outputs if isinstance(o.role, Gradient | Update | StateUpdate)
    ]


def forward_end(graph: Graph) -> int | None:
    """Return the position of the last forward node that the backward pass builds on.

    The sum that makes the loss out of its rows is needed by nobody and may run at any time:
    it does not count. None if there is no backward pass.
    """
    both = forward_nodes(graph) & ancestors(graph, renewed(graph))
    return max((at for at, n in enumerate(graph.nodes) if n.name in both), default=None)
