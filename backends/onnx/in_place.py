"""Which new state may be written over the old one, in whatever order the operators run.

A runtime of graphs keeps to the flow of data and to nothing else. So the old value may be
overwritten only if everything that reads it is needed for the new value, and if the operator
that makes the new value reads each element of the old one, if it reads it, where it writes it.
Adam's moments, and all parameters whose layer passes no gradient on, are of that kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from pockc.ir.graph import Graph, Node
from pockc.ir.phases import ancestors
from pockc.ir.roles import Buffer, OptState, Param, state_written
from pockc.ops import OpKind, get
from pockc.plan.types import StateKey

# The result of these may share the operand's memory: who reads it reads that.
_ALIASING = (OpKind.VIEW, OpKind.MOVE, OpKind.REDUCTION)


def in_place(graph: Graph) -> Iterator[StateKey]:
    """Yield the tensors of the state that may be renewed in place."""
    for output in graph.outputs:
        key = state_written(output.role)
        if not isinstance(key, Param | Buffer | OptState):
            continue
        old, made = graph.input_of(key), graph.node(output.value)
        if made is None or sum(o.value == output.value for o in graph.outputs) > 1:
            continue
        if old is None or _may_overwrite(graph, old.name, made):
            yield key


def _may_overwrite(graph: Graph, old: str, made: Node) -> bool:
    if old in graph.output_values:
        return False
    shared = _sharing(graph, old)
    if shared & graph.output_values:
        return False
    needed = ancestors(graph, [made.name])
    readers = {r.name for value in shared for r in graph.users[value]}
    if not readers <= needed:
        return False
    if not shared.intersection(made.inputs):
        return True
    whole = made.inputs.count(old) == 1 and shared.intersection(made.inputs) == {old}
    elementwise = get(made.op).kind is OpKind.ELEMENTWISE
    return whole and elementwise and graph.type_of(old) == made.type


def _sharing(graph: Graph, value: str) -> set[str]:
    """Return the value and all that may be views of it."""
    found = {value}
    for node in graph.nodes:
        if get(node.op).kind in _ALIASING and found.intersection(node.inputs):
            found.add(node.name)
    return found
