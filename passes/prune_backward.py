"""Keep the updates of what is trained, and drop what only the others needed.

Zhu et al., PockEngine, MICRO 2023, §3.1: the backward graph is pruned at compile time, so that
a frozen tensor costs neither arithmetic nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from pockc.errors import Problem, UserError
from pockc.ir import Gradient, Graph, Output, Param, StateUpdate, Update
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.passes.eliminate_dead import EliminateDead


@dataclass(frozen=True, slots=True)
class PruneBackward:
    """Freeze every parameter that is not in `trainable` (fully qualified names).

    Outputs that are a gradient or a new value of a frozen parameter go, then everything that
    only they needed. Nodes have one result each: nothing of a frozen tensor's gradient stays.
    """

    trainable: frozenset[str]
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the pruned graph.

        Raises:
            UserError: [unknown-parameter] for each name that the graph does not train.
        """
        if problems := tuple(self._unknown(graph)):
            raise UserError(*problems)
        outputs = tuple(o for o in graph.outputs if self._kept(o))
        if len(outputs) == len(graph.outputs):
            outputs = graph.outputs
        return EliminateDead()(
            graph if outputs is graph.outputs else graph.replace(outputs=outputs)
        )

    def _kept(self, output: Output) -> bool:
        match output.role:
            case Gradient(param) | Update(param) | StateUpdate(_, param):
                return param in self.trainable
            case _:
                return True

    def _unknown(self, graph: Graph) -> Iterator[Problem]:
        known = _trained(graph)
        parameters = {i.role.name for i in graph.inputs if isinstance(i.role, Param)}
        for name in sorted(self.trainable - known.keys()):
            near = get_close_matches(name, known)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            if name in parameters:
                what = f"parameter '{name}' has no gradient in this graph"
            else:
                what = f"there is no parameter '{name}'{hint}"
            yield Problem(
                "unknown-parameter", what, fix=f"choose from: {', '.join(known) or 'none'}"
            )


def _trained(graph: Graph) -> dict[str, None]:
    """Return the parameters that have a gradient or a new value, in the order of the graph."""
    roles = (o.role for o in graph.outputs)
    return {r.param: None for r in roles if isinstance(r, (Gradient, Update))}
