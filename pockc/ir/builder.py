"""Builds graphs, inferring every type."""

from __future__ import annotations

from pockc import ops
from pockc.errors import Problem, UserError
from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.graph import Graph, Input, Node, Output, Source
from pockc.ir.printer import print_node
from pockc.ir.roles import InputRole, OutputRole
from pockc.ir.types import DType, TensorType


class GraphBuilder:
    """Collects inputs, nodes and outputs; values are handled by name."""

    def __init__(self, name: str = "graph", taken: frozenset[str] = frozenset()) -> None:
        """Start an empty graph that uses none of the names in `taken`."""
        self._name = name
        self._types: dict[str, TensorType] = {}
        self._taken = set(taken)
        self._next: dict[str, int] = {}
        self._inputs: list[Input] = []
        self._nodes: list[Node] = []
        self._outputs: list[Output] = []
        self._scalars: dict[tuple[DType, str], str] = {}

    def input(self, role: InputRole, tensor: TensorType, name: str | None = None) -> str:
        """Add an input and return its value."""
        name = self._fresh(name or role.keyword)
        self._inputs.append(Input(name, tensor, role))
        self._types[name] = tensor
        return name

    def emit(
        self,
        op: str,
        *inputs: str,
        name: str | None = None,
        source: Source | None = None,
        **attrs: AttrValue,
    ) -> str:
        """Add a node and return its value.

        Raises:
            UserError: [type-rule] The operands do not fit the op.
        """
        frozen = Attrs(attrs)
        name = self._fresh(name or op)
        try:
            tensor = ops.get(op).infer(tuple(self._types[i] for i in inputs), frozen)
        except ValueError as e:
            types = ", ".join(f"%{i}: {self._types[i]}" for i in inputs)
            line = print_node(Node(name, op, inputs, frozen, TensorType((), DType.F32)))
            at = line.replace(" : f32[]", "", 1) + f"  with {types}"
            raise UserError(
                Problem(
                    "type-rule", f"{op}: {e}", at=at, source=str(source) if source else None
                )
            ) from None
        self._nodes.append(Node(name, op, inputs, frozen, tensor, source))
        self._types[name] = tensor
        return name

    def scalar(self, value: float, dtype: DType = DType.F32) -> str:
        """Return a 0-d constant; equal ones are the same value."""
        key = (dtype, repr(value))
        if key not in self._scalars:
            self._scalars[key] = self.emit("full", shape=(), value=value, dtype=dtype, name="c")
        return self._scalars[key]

    def add_node(self, node: Node) -> str:
        """Add a node as it is, name and type included, and return its value."""
        if node.name in self._taken:
            raise ValueError(f"%{node.name} is defined already")
        self._taken.add(node.name)
        self._nodes.append(node)
        self._types[node.name] = node.type
        return node.name

    def output(self, role: OutputRole, value: str) -> None:
        """Add an output."""
        self._outputs.append(Output(value, role))

    def type_of(self, value: str) -> TensorType:
        """Return the type of a value."""
        return self._types[value]

    def build(self) -> Graph:
        """Return the graph built so far."""
        return Graph(self._name, tuple(self._inputs), tuple(self._nodes), tuple(self._outputs))

    def _fresh(self, wish: str) -> str:
        """Return a name like the wished one that is not taken."""
        stem = "".join(c if (c.isalnum() and c.isascii()) or c == "_" else "_" for c in wish)
        name, number = stem, self._next.get(stem, 0)
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._next[stem] = number
        self._taken.add(name)
        return name
