"""Let comparisons read what a clamp gives rather than what it takes.

The gradients of relu, relu6 and the like ask whether their operand was inside. The result tells
as well, and the next layer needs it anyway; the operand then lives inside one kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc.ir import Graph, Node
from pockc.ir.verify import Invariant
from pockc.passes.base import log


@dataclass(frozen=True, slots=True)
class ReuseClamped:
    """Compare the result of a clamp where that gives the same truth.

        %m = maximum(%x, %zero)                 %m = maximum(%x, %zero)
        %y = minimum(%m, %six)            ->    %y = minimum(%m, %six)
        %on = gt(%x, %zero)                     %on = gt(%y, %zero)

    Done where every other reader of %x is a comparison that can follow: else %x must be kept
    all the same.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with comparisons moved."""
        moved: dict[str, str] = {}
        for node in graph.nodes:
            if node.op not in ("maximum", "minimum"):
                continue
            clamp = _clamp_from(graph, node)
            comparisons = None if clamp is None else _comparisons(graph, node, clamp)
            if clamp is not None and comparisons:
                log.debug(
                    "reuse_clamped: %d comparisons read %%%s", len(comparisons), clamp.value
                )
                moved.update(dict.fromkeys(comparisons, clamp.value))
        if not moved:
            return graph
        return _sorted(
            graph,
            tuple(
                replace(n, inputs=(moved[n.name], n.inputs[1])) if n.name in moved else n
                for n in graph.nodes
            ),
        )


@dataclass(frozen=True, slots=True)
class _Clamp:
    """A value that is `operand` moved into [low, high]."""

    operand: str
    value: str
    low: float
    high: float

    def tells(self, op: str, bound: float) -> bool:
        """Whether comparing the result with a bound is comparing the operand."""
        if op in ("gt", "le"):
            return self.low <= bound < self.high
        return self.low < bound <= self.high


def _number(graph: Graph, value: str) -> float | None:
    node = graph.node(value)
    if node is None or node.op != "full" or node.type.shape:
        return None
    found: float = node.attrs["value"]
    return found


def _clamp_from(graph: Graph, node: Node) -> _Clamp | None:
    """Return the clamp that begins with a maximum or minimum, if it is one."""
    if not node.type.dtype.is_float or graph.type_of(node.inputs[0]) != node.type:
        return None
    bound = _number(graph, node.inputs[1])
    made = graph.node(node.inputs[0])
    if bound is None or (made is not None and made.op in ("maximum", "minimum")):
        return None
    operand, value = node.inputs[0], node.name
    limits = {"maximum": -math.inf, "minimum": math.inf, node.op: bound}
    users = graph.users[node.name]
    other = "minimum" if node.op == "maximum" else "maximum"
    if len(users) == 1 and users[0].op == other and users[0].inputs[0] == node.name:
        second = _number(graph, users[0].inputs[1])
        if second is not None:
            limits[other], value = second, users[0].name
    return _Clamp(operand, value, limits["maximum"], limits["minimum"])


def _comparisons(graph: Graph, first: Node, clamp: _Clamp) -> list[str] | None:
    """Return the comparisons of a clamp's operand, None if some reader cannot follow."""
    found = []
    if clamp.operand in graph.output_values:
        return None
    for user in graph.users[clamp.operand]:
        if user is first:
            continue
        bound = _number(graph, user.inputs[1]) if len(user.inputs) == 2 else None
        follows = user.op in ("gt", "ge", "lt", "le") and user.inputs[0] == clamp.operand
        if not follows or bound is None or not clamp.tells(user.op, bound):
            return None
        found.append(user.name)
    return found


def _sorted(graph: Graph, nodes: tuple[Node, ...]) -> Graph:
    """Put nodes behind their operands: a comparison may have stood before the clamp's end."""
    known = {i.name for i in graph.inputs}
    placed: list[Node] = []
    waiting: dict[str, list[Node]] = {}
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        missing = next((i for i in node.inputs if i not in known), None)
        if missing is not None:
            waiting.setdefault(missing, []).append(node)
            continue
        placed.append(node)
        known.add(node.name)
        stack += reversed(waiting.pop(node.name, []))
    return graph.replace(nodes=tuple(placed))
