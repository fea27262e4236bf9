"""The parts of a training step, forward, backward and update, told from the graph alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pockc.ir.graph import Graph, Node
from pockc.ir.roles import (
    Gradient,
    Loss,
    OptState,
    Scalar,
    StateUpdate,
    Update,
    state_written,
)

PHASES = ("forward", "backward", "update")


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


def step_phases(graph: Graph) -> Callable[[Node], str]:
    """Return which of `PHASES` a node belongs to; "" if the graph renews no state.

    Update is what reads the optimizer's state, the rate or the step. A kernel that makes a
    gradient and applies it at once belongs to it as well.
    """
    if not any(state_written(o.role) for o in graph.outputs):
        return lambda _: ""
    forward = forward_nodes(graph)
    late: set[str] = {
        i.name
        for i in graph.inputs
        if isinstance(i.role, OptState) or i.role in (Scalar("lr"), Scalar("step"))
    }
    for node in graph.nodes:
        if late.intersection(node.inputs):
            late.add(node.name)
    gradients = ancestors(graph, (i for n in graph.nodes if n.name in late for i in n.inputs))

    def phase(node: Node) -> str:
        if node.name in forward:
            return "forward"
        made_by_model = node.source is not None or node.name in gradients
        return "update" if node.name in late or not made_by_model else "backward"

    return phase
