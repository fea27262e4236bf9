"""Drop the nodes that no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pockc.ir import Graph
from pockc.ir.verify import Invariant, no_dead_nodes


@dataclass(frozen=True, slots=True)
class EliminateDead:
    """Drop every node that no output needs, directly or through others.

    Inputs stay: they say what the model holds, whether this entry reads it or not.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph without dead nodes."""
        needed = set(graph.output_values)
        for node in reversed(graph.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        alive = tuple(n for n in graph.nodes if n.name in needed)
        return graph if len(alive) == len(graph.nodes) else graph.replace(nodes=alive)
