"""Adds nodes in canonical form: every node that a rule builds is simplified in its turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pockc.ir import Attrs, AttrValue, DType, Graph, Node, Source, TensorType
from pockc.passes.base import log
from pockc.passes.rewriting import Rewriter

Rule = Callable[["Simplifier", Node], "str | None"]


class Simplifier(Rewriter):
    """A rewriter that tries the rules of a node's op before it adds the node."""

    def __init__(self, graph: Graph, rules: Mapping[str, tuple[Rule, ...]]) -> None:
        """Start with the inputs of a graph."""
        super().__init__(graph)
        self._rules = rules
        self._scalars: dict[tuple[str, DType], str] = {}

    def simplify(self, node: Node) -> str:
        """Return a value equal to a node's; the node is added if no rule applies."""
        for rule in self._rules.get(node.op, ()):
            found = rule(self, node)
            if found is not None:
                log.debug("canonicalize: %s(%%%s): %s", node.op, node.name, rule.__name__)
                return found
        if not node.name:
            node = replace(node, name=self.fresh(node.op))
        return self.append(node)

    def build(
        self, op: str, *inputs: str, source: Source | None = None, **attrs: AttrValue
    ) -> str:
        """Return the value of a new node, simplified."""
        return self.simplify(self.make(op, inputs, Attrs(attrs), source=source))

    def again(self, node: Node, *inputs: str) -> str:
        """Return the value of a node's op and attributes on other operands, simplified."""
        return self.simplify(self.make(node.op, inputs, node.attrs, source=node.source))

    def scalar(self, value: float, dtype: DType = DType.F32) -> str:
        """Return a 0-d constant; equal ones are the same value."""
        key = (repr(value), dtype)
        if key not in self._scalars:
            self._scalars[key] = super().scalar(value, dtype)
        return self._scalars[key]

    def append(self, node: Node) -> str:
        """Add a node as it is, and remember 0-d constants."""
        if node.op == "full" and not node.type.shape:
            self._scalars.setdefault((repr(node.attrs["value"]), node.type.dtype), node.name)
        return super().append(node)

    def full(self, value: float, tensor: TensorType, source: Source | None = None) -> str:
        """Return a constant tensor of one number."""
        if not tensor.shape:
            return self.scalar(value, tensor.dtype)
        return self.build(
            "full", shape=tensor.shape, value=value, dtype=tensor.dtype, source=source
        )

    def constant(self, value: str) -> float | None:
        """Return the number of which a value consists, None if it is not constant."""
        node = self.node_of(value)
        if node is None:
            return None
        if node.op == "full":
            number: float = node.attrs["value"]
            return number
        if node.op == "literal" and node.type.size == 1:
            item: float = node.attrs["value"].array.item()
            return item
        return None

    def made_by(self, value: str, op: str) -> Node | None:
        """Return the node that makes a value if it is of that op."""
        node = self.node_of(value)
        return node if node is not None and node.op == op else None

    def expanded(self, value: str, tensor: TensorType, source: Source | None = None) -> str:
        """Return a value broadcast to the shape of a type."""
        if self.type_of(value).shape == tensor.shape:
            return value
        return self.build("broadcast_to", value, shape=tensor.shape, source=source)

    def reshaped(self, value: str, shape: tuple[int, ...], source: Source | None = None) -> str:
        """Return a value in another shape."""
        return self.build("reshape", value, shape=shape, source=source)
