"""Bring nodes into one of the many forms that mean the same: the simplest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pockc import ops
from pockc.ir import Graph
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.ops import OpKind
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.identities import arithmetic, movement, operands, reductions
from pockc.passes.identities.simplifier import Rule, Simplifier


def _table() -> Mapping[str, tuple[Rule, ...]]:
    table: dict[str, tuple[Rule, ...]] = {}
    for name, op in ops.OPS.items():
        rules = (
            *arithmetic.RULES.get(name, ()),
            *movement.RULES.get(name, ()),
            *reductions.RULES.get(name, ()),
        )
        if op.kind is OpKind.ELEMENTWISE:
            rules = (*operands.RULES, *rules)
        table[name] = rules
    return table


_RULES = _table()


@dataclass(frozen=True, slots=True)
class Canonicalize:
    """Apply the identities of `identities/` until none applies; one walk suffices.

        %0 = full() {shape=(4, 3), value=0.0}
        %1 = add(%x, %0)                            ->    %3 = neg(%x)
        %2 = reshape(%1) {shape=(4, 3)}
        %3 = neg(%2)

    Runs before layouts are chosen: it knows logical shapes only.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph in canonical form."""
        rewriter = Simplifier(graph, _RULES)
        for node in graph.nodes:
            rewriter.replace(node.name, rewriter.simplify(rewriter.here(node)))
        return EliminateDead()(rewriter.finish())
