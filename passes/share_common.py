"""Compute equal values once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pockc.ir import Graph, Node
from pockc.ir.verify import Invariant
from pockc.passes.rewriting import Rewriter

# a op b and b op a are the same bits; maximum and minimum are not where 0 meets -0.
COMMUTATIVE = frozenset({"add", "mul", "eq", "ne", "logical_and", "logical_or"})


@dataclass(frozen=True, slots=True)
class ShareCommon:
    """Let one node stand for all that have its op, operands and attributes.

        %a = exp(%x)                %a = exp(%x)
        %b = exp(%x)        ->      %y = add(%a, %a)
        %y = add(%a, %b)

    Every op is a pure function, random numbers included (of a seed and a salt), so equal
    nodes are equal values. This also hoists what does not depend on the tensor: the bias
    corrections of Adam are the same nodes for every parameter and stay once.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with equal nodes merged into the first of them."""
        first: dict[object, str] = {}
        rewriter = Rewriter(graph)
        for old in graph.nodes:
            node = rewriter.here(old)
            kept = first.setdefault(_key(node), node.name)
            if kept == node.name:
                rewriter.append(node)
            else:
                rewriter.replace(node.name, kept)
        return rewriter.finish()


def _key(node: Node) -> object:
    inputs = tuple(sorted(node.inputs)) if node.op in COMMUTATIVE else node.inputs
    return (node.op, inputs, node.attrs, node.type)
