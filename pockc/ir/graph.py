"""The graph: immutable, in single static assignment, one result per node.

A node's name is the name of its value. Because a node has one result, a convolution's
backward is three nodes, and pruning is nothing but dropping outputs and what is then dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from pockc.ir.attrs import Attrs
from pockc.ir.roles import InputRole, OutputRole
from pockc.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Source:
    """The user's line that a node comes from."""

    file: str
    line: int
    function: str = ""
    text: str = ""
    module: str = ""

    def __str__(self) -> str:
        """Return it as an error shows it: `model.py:27 in Mlp.forward: return ...`."""
        where = f" in {self.function}" if self.function else ""
        return f"{self.file}:{self.line}{where}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and its result. Where it comes from takes no part in comparisons."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Attrs
    type: TensorType
    source: Source | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Input:
    """A value given from outside."""

    name: str
    type: TensorType
    role: InputRole


@dataclass(frozen=True, slots=True)
class Output:
    """A value that leaves the graph."""

    value: str
    role: OutputRole


@dataclass(frozen=True)
class Graph:
    """Inputs, nodes in an order in which they can run, and outputs."""

    name: str
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def defs(self) -> Mapping[str, Input | Node]:
        """What defines each value."""
        table: dict[str, Input | Node] = {i.name: i for i in self.inputs}
        table.update((n.name, n) for n in self.nodes)
        return table

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in order, each once; empty if nobody reads it."""
        table: dict[str, list[Node]] = {name: [] for name in self.defs}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                table.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in table.items()}

    @cached_property
    def output_values(self) -> frozenset[str]:
        """The values that leave the graph."""
        return frozenset(o.value for o in self.outputs)

    @cached_property
    def _inputs_by_role(self) -> Mapping[InputRole, Input]:
        return {i.role: i for i in self.inputs}

    @cached_property
    def _outputs_by_role(self) -> Mapping[OutputRole, Output]:
        return {o.role: o for o in self.outputs}

    def type_of(self, name: str) -> TensorType:
        """Return the type of a value."""
        return self.defs[name].type

    def node(self, name: str) -> Node | None:
        """Return the node that makes a value, None for an input."""
        found = self.defs[name]
        return found if isinstance(found, Node) else None

    def input_of(self, role: InputRole) -> Input | None:
        """Return the input of a role, None if there is none."""
        return self._inputs_by_role.get(role)

    def output_of(self, role: OutputRole) -> Output | None:
        """Return the output of a role, None if there is none."""
        return self._outputs_by_role.get(role)

    def operand_types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's operands."""
        return tuple(self.defs[i].type for i in node.inputs)

    def replace(
        self,
        *,
        name: str | None = None,
        inputs: tuple[Input, ...] | None = None,
        nodes: tuple[Node, ...] | None = None,
        outputs: tuple[Output, ...] | None = None,
    ) -> Graph:
        """Return a copy with some parts exchanged."""
        return Graph(
            self.name if name is None else name,
            self.inputs if inputs is None else inputs,
            self.nodes if nodes is None else nodes,
            self.outputs if outputs is None else outputs,
        )

    def substitute(self, same: Mapping[str, str]) -> Graph:
        """Return a copy that reads, for every key, the value it maps to; chains are followed.

        The nodes that made the replaced values stay: they are dead, not gone.
        """
        if not same:
            return self

        def final(name: str) -> str:
            while name in same:
                name = same[name]
            return name

        nodes = tuple(
            replace(n, inputs=tuple(map(final, n.inputs)))
            if any(i in same for i in n.inputs)
            else n
            for n in self.nodes
        )
        outputs = tuple(
            replace(o, value=final(o.value)) if o.value in same else o for o in self.outputs
        )
        return self.replace(nodes=nodes, outputs=outputs)

    def __str__(self) -> str:
        """Return the text form; `parse_graph` reads it back."""
        from pockc.ir.printer import print_graph

        return print_graph(self)
