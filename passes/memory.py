"""How much memory an order of nodes needs; `reorder` and `update_in_place` share it.

Views and in-place results share the storage of an operand. What lasts between steps
(parameters, optimizer state, buffers, literals) lies in the state and costs an order nothing;
a new value of such a tensor is written over the old one where that can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from pockc import ops
from pockc.ir import Batch, Graph, Input, Node, state_written
from pockc.ir.views import is_view
from pockc.ops import OpKind


class Storages:
    """The storage of each value of a graph, named by the value that it begins with."""

    def __init__(self, graph: Graph, *, anchors: bool = False) -> None:
        """Look at a graph; orders of its nodes may be compared afterwards.

        Args:
            graph: The graph.
            anchors: Whether a new value of state that a contraction or reduction ends with can
                be written over the old one; as in `may_overwrite`.
        """
        self.graph = graph
        self._anchors = anchors
        self.state: dict[str, str] = {}
        """For each value that is a piece of state's new value, the input it replaces."""
        for output in graph.outputs:
            role = state_written(output.role)
            home = graph.input_of(role) if role else None
            if home is not None and home.name != output.value:
                self.state[output.value] = home.name
        self.root: dict[str, str] = {i.name: i.name for i in graph.inputs}
        for node in graph.nodes:
            shared = self._shared(node)
            self.root[node.name] = node.name if shared is None else self.root[shared]

    def _shared(self, node: Node) -> str | None:
        if is_view(self.graph, node):
            return node.inputs[0]
        index = node.attrs.get("inplace")
        if index is not None:
            return node.inputs[int(index)]
        home = self.state.get(node.name)
        if home is None or not may_overwrite(self.graph, node, home, anchors=self._anchors):
            return None
        return home

    @cached_property
    def nbytes(self) -> dict[str, int]:
        """Bytes of scratch that each storage takes; 0 for what lies in the state."""
        sizes = dict.fromkeys(self.root.values(), 0)
        for name, root in self.root.items():
            made = self.graph.defs[root]
            if isinstance(made, Input) and not isinstance(made.role, Batch):
                continue
            if isinstance(made, Node) and made.op == "literal":
                continue
            sizes[root] = max(sizes[root], self.graph.type_of(name).nbytes)
        return sizes

    @cached_property
    def readers(self) -> dict[str, set[str]]:
        """The nodes that read each storage, views apart."""
        found: dict[str, set[str]] = {root: set() for root in self.nbytes}
        for node in self.graph.nodes:
            if not is_view(self.graph, node):
                for name in node.inputs:
                    found[self.root[name]].add(node.name)
        return found

    @cached_property
    def old_readers(self) -> dict[str, set[str]]:
        """The nodes that read each value itself or a view of it, and not what replaces it."""
        content = {i.name: i.name for i in self.graph.inputs}
        found: dict[str, set[str]] = {name: set() for name in content}
        for node in self.graph.nodes:
            view = is_view(self.graph, node)
            content[node.name] = content[node.inputs[0]] if view else node.name
            found.setdefault(node.name, set())
            if not view:
                for name in node.inputs:
                    found[content[name]].add(node.name)
        return found

    @cached_property
    def lasting(self) -> frozenset[str]:
        """The storages that an output names: they live to the end."""
        return frozenset(self.root[o.value] for o in self.graph.outputs)

    def live_bytes(self, order: Sequence[Node]) -> Iterator[int]:
        """Yield the bytes alive while each node runs; its operands live till its end."""
        left = {root: len(names) for root, names in self.readers.items()}
        inputs = {i.name for i in self.graph.inputs}
        live = sum(
            self.nbytes[root]
            for root in inputs & self.nbytes.keys()
            if left[root] or root in self.lasting
        )
        for node in order:
            root = self.root[node.name]
            if root == node.name:
                live += self.nbytes[root]
            yield live
            if is_view(self.graph, node):
                continue
            for used in {self.root[i] for i in node.inputs}:
                left[used] -= 1
                if not left[used] and used not in self.lasting:
                    live -= self.nbytes[used]
            if root == node.name and not left[root] and root not in self.lasting:
                live -= self.nbytes[root]

    def peak_bytes(self, order: Sequence[Node]) -> int:
        """Return the most bytes alive while any node runs."""
        return max(self.live_bytes(order), default=0)


def may_overwrite(graph: Graph, node: Node, operand: str, *, anchors: bool = False) -> bool:
    """Return whether a node's kernel may write its result over an operand.

    It may if it reads each element of the operand only to make the element at the same place.

    Args:
        graph: The graph.
        node: The node.
        operand: The operand, by value.
        anchors: Whether that holds too for operands of the epilogue of a contraction or
            reduction; it depends on the backend.
    """
    if node.inputs.count(operand) != 1 or graph.type_of(operand) != node.type:
        return False
    index = node.inputs.index(operand)
    if node.op in ("put", "index_add"):
        return index == 0
    if node.op != "fused":
        return ops.get(node.op).kind is OpKind.ELEMENTWISE
    body: Graph = node.attrs["body"]
    kinds = {ops.get(n.op).kind for n in body.nodes}
    if not anchors and kinds & {OpKind.CONTRACTION, OpKind.REDUCTION, OpKind.POOL}:
        return False
    return _pointwise(body, body.inputs[index].name)


def _pointwise(body: Graph, name: str) -> bool:
    """Whether a value reaches the result through elementwise ops of its own shape only."""
    result = body.type_of(body.outputs[0].value)
    reached = {name}
    for node in body.nodes:
        if reached.isdisjoint(node.inputs):
            continue
        if ops.get(node.op).kind is not OpKind.ELEMENTWISE:
            return False
        if (node.type.shape, node.type.order) != (result.shape, result.order):
            return False
        reached.add(node.name)
    return True
