"""Invariants of a graph, as generators that yield everything that is wrong.

unique_names    no two definitions share a name
ssa_order       every operand is defined before it is read
known_ops       every node's op exists
type_rule       every node's type is what its op infers, up to the layout
output_live     every output reads a value that exists
unique_roles    no two inputs, and no two outputs, have one role
update_types    a new value of a piece of state has the type and layout of the state
no_dead_nodes   every node is read by another node or is an output
views_only      every reshape and permute is a view (holds from `layout` on)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pockc import ops
from pockc.errors import InternalError, Problem
from pockc.ir.graph import Graph, Node
from pockc.ir.printer import print_node
from pockc.ir.roles import state_written
from pockc.ir.views import is_view

Invariant = Callable[[Graph], Iterator[Problem]]


def _problem(slug: str, what: str, node: Node | None = None) -> Problem:
    source = str(node.source) if node and node.source else None
    return Problem(slug, what, at=print_node(node) if node else None, source=source)


def unique_names(graph: Graph) -> Iterator[Problem]:
    """No two definitions share a name."""
    names = [i.name for i in graph.inputs] + [n.name for n in graph.nodes]
    for name, count in Counter(names).items():
        if count > 1:
            yield _problem("unique-names", f"%{name} is defined {count} times")


def ssa_order(graph: Graph) -> Iterator[Problem]:
    """Every operand is defined before it is read."""
    seen = {i.name for i in graph.inputs}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in seen:
                yield _problem("ssa-order", f"%{name} is read before it is defined", node)
        seen.add(node.name)


def known_ops(graph: Graph) -> Iterator[Problem]:
    """Every node's op exists."""
    for node in graph.nodes:
        if node.op not in ops.OPS:
            yield _problem("unknown-op", f"there is no op '{node.op}'", node)


def type_rule(graph: Graph) -> Iterator[Problem]:
    """Every node's shape and dtype are what its op infers."""
    for node in graph.nodes:
        if node.op not in ops.OPS or not all(i in graph.defs for i in node.inputs):
            continue
        try:
            expected = ops.get(node.op).infer(graph.operand_types(node), node.attrs)
        except (ValueError, KeyError, TypeError) as e:
            yield _problem("type-rule", f"operands do not fit: {e}", node)
            continue
        if (expected.shape, expected.dtype) != (node.type.shape, node.type.dtype):
            yield _problem("type-rule", f"expected {expected}, found {node.type}", node)


def output_live(graph: Graph) -> Iterator[Problem]:
    """Every output reads a value that exists."""
    for output in graph.outputs:
        if output.value not in graph.defs:
            yield _problem(
                "output-live", f"output {output.role} reads %{output.value}: no such value"
            )


def unique_roles(graph: Graph) -> Iterator[Problem]:
    """No two inputs, and no two outputs, have one role."""
    roles = Counter([*(i.role for i in graph.inputs), *(o.role for o in graph.outputs)])
    for role, count in roles.items():
        if count > 1:
            yield _problem("unique-roles", f"{role} occurs {count} times")


def update_types(graph: Graph) -> Iterator[Problem]:
    """A new value of a piece of state has the type of the state, layout included."""
    for output in graph.outputs:
        role = state_written(output.role)
        state = graph.input_of(role) if role else None
        if state and output.value in graph.defs and graph.type_of(output.value) != state.type:
            found = graph.type_of(output.value)
            yield _problem(
                "update-types", f"{output.role} is {found}, the state is {state.type}"
            )


def no_dead_nodes(graph: Graph) -> Iterator[Problem]:
    """Every node is read by another node or is an output."""
    for node in graph.nodes:
        if not graph.users[node.name] and node.name not in graph.output_values:
            yield _problem("dead-node", "nothing reads this value", node)


def views_only(graph: Graph) -> Iterator[Problem]:
    """Every reshape and permute names the bytes of its operand and moves none."""
    for node in graph.nodes:
        if node.op in ("reshape", "permute") and not is_view(graph, node):
            yield _problem("views-only", "this would move bytes; a relayout must do that", node)


STRUCTURE: tuple[Invariant, ...] = (
    unique_names,
    ssa_order,
    known_ops,
    type_rule,
    output_live,
    unique_roles,
)


def problems_of(
    graph: Graph, invariants: Iterable[Invariant] = STRUCTURE
) -> tuple[Problem, ...]:
    """Return everything that violates the invariants, in their order."""
    return tuple(p for invariant in invariants for p in invariant(graph))


def verify(graph: Graph, invariants: Iterable[Invariant] = STRUCTURE) -> Graph:
    """Return the graph itself if it is well formed.

    Raises:
        InternalError: With every violation found.
    """
    if problems := problems_of(graph, invariants):
        raise InternalError(*problems)
    return graph
