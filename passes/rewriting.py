"""Rebuilding a graph node by node, in order.

Most passes walk the nodes once. For each they keep it, with its operands renamed to what the
pass made of them, or put something else in its place. `Rewriter` does the bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from pockc import ops
from pockc.ir import (
    Attrs,
    AttrValue,
    DType,
    Graph,
    Input,
    InputRole,
    Literal,
    Node,
    Output,
    Source,
    TensorType,
)


class Rewriter:
    """Collects the nodes of a new graph and what became of the values of the old one.

    Names "now" are names in the new graph; an old value keeps its name unless it is replaced.
    """

    def __init__(self, graph: Graph) -> None:
        """Start with the inputs of a graph and none of its nodes."""
        self.graph = graph
        self.inputs: list[Input] = list(graph.inputs)
        self.nodes: list[Node] = []
        self._defs: dict[str, Input | Node] = {i.name: i for i in graph.inputs}
        self._by_role: dict[InputRole, str] = {i.role: i.name for i in graph.inputs}
        self._same: dict[str, str] = {}
        self._taken = set(graph.defs)
        self._next: dict[str, int] = {}

    def now(self, old: str) -> str:
        """Return the value that stands for a value of the old graph."""
        return self._same.get(old, old)

    def type_of(self, value: str) -> TensorType:
        """Return the type of a new value."""
        return self._defs[value].type

    def node_of(self, value: str) -> Node | None:
        """Return the node that makes a new value, None for an input."""
        found = self._defs[value]
        return found if isinstance(found, Node) else None

    def here(self, node: Node) -> Node:
        """Return an old node with its operands as they are named now."""
        same = self._same
        inputs = tuple(same.get(i, i) for i in node.inputs)
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    def keep(self, node: Node) -> str:
        """Add an old node, its operands renamed, and return its value."""
        return self.append(self.here(node))

    def append(self, node: Node) -> str:
        """Add a node as it is."""
        self.nodes.append(node)
        self._defs[node.name] = node
        return node.name

    def replace(self, old: str, new: str) -> None:
        """Let a new value stand for an old one."""
        if old != new:
            self._same[old] = new

    def add_input(self, given: Input) -> str:
        """Add an input; its name is changed if it is taken."""
        given = replace(given, name=self.fresh(given.name))
        self.inputs.append(given)
        self._defs[given.name] = given
        self._by_role[given.role] = given.name
        return given.name

    def input_of(self, role: InputRole) -> str | None:
        """Return the input of a role, None if there is none."""
        return self._by_role.get(role)

    def emit(
        self,
        op: str,
        *inputs: str,
        name: str | None = None,
        source: Source | None = None,
        **attrs: AttrValue,
    ) -> str:
        """Add a new node, infer its type, and return its value."""
        return self.add(op, inputs, Attrs(attrs), source, name or op)

    def add(
        self,
        op: str,
        inputs: Iterable[str],
        attrs: Attrs,
        source: Source | None = None,
        name: str | None = None,
    ) -> str:
        """Add a new node, its attributes given as one, and return its value."""
        node = self.make(op, inputs, attrs, source=source)
        return self.append(replace(node, name=self.fresh(name or op)))

    def make(
        self,
        op: str,
        inputs: Iterable[str],
        attrs: Attrs,
        *,
        name: str = "",
        source: Source | None = None,
    ) -> Node:
        """Return a node with its type inferred, without adding it."""
        operands = tuple(inputs)
        types = tuple(self._defs[i].type for i in operands)
        return Node(name, op, operands, attrs, ops.get(op).infer(types, attrs), source)

    def scalar(self, value: float, dtype: DType = DType.F32) -> str:
        """Add a 0-d constant."""
        return self.emit("full", shape=(), value=value, dtype=dtype, name="c")

    def literal(self, array: np.ndarray, name: str = "literal") -> str:
        """Add a constant array."""
        return self.emit("literal", value=Literal(array), name=name)

    def fresh(self, wish: str) -> str:
        """Return a name like the wished one that is not taken."""
        name, number = wish, self._next.get(wish, 0)
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._next[wish] = number
        self._taken.add(name)
        return name

    def finish(self, outputs: Iterable[Output] | None = None) -> Graph:
        """Return the new graph, or the old one itself if nothing is different.

        Args:
            outputs: The outputs, reading new values; by default those of the old graph.
        """
        if outputs is None:
            outputs = (
                replace(o, value=self._same[o.value]) if o.value in self._same else o
                for o in self.graph.outputs
            )
        made = Graph(self.graph.name, tuple(self.inputs), tuple(self.nodes), tuple(outputs))
        return self.graph if same_graph(made, self.graph) else made


def same_graph(a: Graph, b: Graph) -> bool:
    """Return whether two graphs consist of the very same objects; cheaper than equality."""
    return (
        len(a.nodes) == len(b.nodes)
        and a.outputs == b.outputs
        and a.inputs == b.inputs
        and all(x is y for x, y in zip(a.nodes, b.nodes, strict=True))
    )


def inline(
    rewriter: Rewriter, body: Graph, operands: Mapping[str, str], prefix: str = ""
) -> dict[str, str]:
    """Add the nodes of another graph and return the new name of each of its values.

    Args:
        rewriter: Where to add them.
        body: The graph to copy from.
        operands: For every input of the body, by name, the new value it reads.
        prefix: What the new names begin with.
    """
    names = dict(operands)
    for node in body.nodes:
        moved = replace(
            node,
            name=rewriter.fresh(prefix + node.name),
            inputs=tuple(names[i] for i in node.inputs),
        )
        names[node.name] = rewriter.append(moved)
    return names
