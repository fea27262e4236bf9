"""Let a node write its result over an operand that nobody reads any more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc.errors import Problem
from pockc.ir import Batch, Graph, Input, Node, print_node
from pockc.ir.verify import Invariant
from pockc.passes.memory import Storages, may_overwrite


def in_place_safe(graph: Graph) -> Iterator[Problem]:
    """No storage is read after a node has overwritten it, other than as that node's value."""
    storages = Storages(graph)
    holds: dict[str, str] = {}
    content = {i.name: i.name for i in graph.inputs}
    for node in graph.nodes:
        for name in node.inputs:
            held = holds.get(storages.root[name], storages.root[name])
            if content[name] != held and storages.root[name] in holds:
                yield Problem(
                    "in-place-safe",
                    f"%{name} was overwritten by %{held} before this reads it",
                    at=print_node(node),
                )
        index = node.attrs.get("inplace")
        view = index is None and storages.root[node.name] != node.name and _is_view(node)
        content[node.name] = content[node.inputs[0]] if view else node.name
        if index is not None:
            holds[storages.root[node.name]] = node.name


def _is_view(node: Node) -> bool:
    return node.op in ("reshape", "permute")


@dataclass(frozen=True, slots=True)
class UpdateInPlace:
    """Mark with `inplace=i` the nodes that overwrite operand i.

        %w2 = sub(%w, %d)             ->    %w2 = sub(%w, %d) {inplace=0}
        output update "w" %w2               output update "w" %w2

    The operand must be read for the last time, hold what the result is (type and layout), and
    be read element by element at the place that is written. State is overwritten by its own
    new value only.

    Attributes:
        anchors: Whether kernels around a contraction or reduction can do it too.
    """

    anchors: bool = False
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (in_place_safe,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with in-place marks."""
        marker = _Marker(graph, anchors=self.anchors)
        nodes = tuple(marker.visit(at, n) for at, n in enumerate(graph.nodes))
        changed = any(a is not b for a, b in zip(nodes, graph.nodes, strict=True))
        return graph.replace(nodes=nodes) if changed else graph


class _Marker:
    def __init__(self, graph: Graph, *, anchors: bool) -> None:
        self.graph = graph
        self.anchors = anchors
        self.storages = Storages(graph, anchors=anchors)
        self.state = self.storages.state
        # Here a result has a storage of its own until it is marked.
        self.root = {i.name: i.name for i in graph.inputs}
        self.views = {n.name for n in graph.nodes if self._views(n)}
        self.last: dict[str, int] = {}
        self._find_last_reads()

    def _views(self, node: Node) -> bool:
        return _is_view(node) and self.storages.root[node.name] != node.name

    def _find_last_reads(self) -> None:
        """Note where each value's bytes are read last, through any of its views."""
        base = dict(self.root)
        for at, node in enumerate(self.graph.nodes):
            base[node.name] = base[node.inputs[0]] if node.name in self.views else node.name
            for name in node.inputs:
                self.last[base[name]] = at
        outside = len(self.graph.nodes)
        for output in self.graph.outputs:
            if output.value not in self.state:
                self.last[base[output.value]] = outside
        # New state is complete where it is made; it must stay to the end.
        for value in self.state:
            self.last[base[value]] = outside
        self.base = base

    def visit(self, at: int, node: Node) -> Node:
        if node.name in self.views or "inplace" in node.attrs or not node.inputs:
            return node
        for name in self._candidates(node):
            if self._free(at, node, name) and may_overwrite(
                self.graph, node, name, anchors=self.anchors
            ):
                index = node.inputs.index(name)
                return replace(node, attrs=node.attrs.but(inplace=index))
        return node

    def _candidates(self, node: Node) -> list[str]:
        """The state that the node renews; without that, operands from the first on."""
        home = self.state.get(node.name)
        if home is not None:
            return [i for i in node.inputs if i == home]
        return list(dict.fromkeys(node.inputs))

    def _free(self, at: int, node: Node, name: str) -> bool:
        base = self.base[name]
        if self.last.get(base) != at or [self.base[i] for i in node.inputs].count(base) != 1:
            return False
        made = self.graph.defs[base]
        if isinstance(made, Input):
            return isinstance(made.role, Batch) or self.state.get(node.name) == base
        return made.op != "literal"
