"""Builds an ONNX graph operator by operator, with names from the user's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pockc.backends.onnx.elements import ELEMENTS
from pockc.backends.onnx.names import node_path
from pockc.backends.onnx.weights import Weight
from pockc.ir.graph import Graph, Node
from pockc.ir.types import DType, TensorType

METADATA_OPSET = 21
"""From this opset on, or rather from the format's version 10 on, nodes have metadata."""


@dataclass
class _Operator:
    """A node to be; its names are final when the lowering is done."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: Mapping[str, Any]
    phase: str
    source: str


@dataclass
class Builder:
    """An ONNX graph under construction.

    Attributes:
        graph: What is lowered.
        opset: Version of the operators.
        phase_of: Which part of the step a node belongs to.
        weights: The constants by name.
    """

    graph: Graph
    opset: int
    phase_of: Callable[[Node], str]
    weights: dict[str, Weight] = field(default_factory=dict)
    _operators: list[_Operator] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _by_key: dict[str, str] = field(default_factory=dict)
    _made: dict[object, str] = field(default_factory=dict)
    _final: dict[str, str] = field(default_factory=dict)
    _node: Node | None = None

    def unique(self, wanted: str) -> str:
        """Return a name that nothing else has, the wanted one if it is free."""
        found, count = wanted, 1
        while found in self._taken:
            count += 1
            found = f"{wanted}.{count}"
        self._taken.add(found)
        return found

    def bind(self, value: str, name: str) -> None:
        """Say under which name a value of the graph is known."""
        self._names[value] = name

    def __getitem__(self, value: str) -> str:
        """Return the name under which a value of the graph is known."""
        return self._names[value]

    def operands(self, node: Node) -> list[str]:
        """Return the names of a node's operands."""
        return [self._names[i] for i in node.inputs]

    def types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's operands."""
        return self.graph.operand_types(node)

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:  # noqa: ANN401
        """Add an operator, without attributes of None, and return the name of its result."""
        return self.ops(op, *inputs, results=1, **attrs)[0]

    def ops(
        self,
        op: str,
        *inputs: str,
        results: int,
        **attrs: Any,  # noqa: ANN401
    ) -> list[str]:
        """Add an operator and return the names of its results."""
        names = [self.unique(self._path()) for _ in range(results)]
        node = self._node
        source = "" if node is None or node.source is None else str(node.source)
        phase = "" if node is None else self.phase_of(node)
        used = {k: v for k, v in attrs.items() if v is not None}
        self._operators.append(_Operator(op, list(inputs), names, used, phase, source))
        return names

    def _path(self) -> str:
        """Return the name of the node's result: part of the step, module, value."""
        return "value" if self._node is None else node_path(self._node, self.phase_of)

    def once(self, key: object, make: Callable[[], str]) -> str:
        """Return what was made for a key before, or make it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def cast(self, name: str, dtype: DType) -> str:
        """Return a value in another element type."""
        return self.op("Cast", name, to=ELEMENTS[dtype])

    def constant(
        self, array: np.ndarray, dtype: DType | None = None, name: str = "constant"
    ) -> str:
        """Return the name of a constant, the given one if it is new and that is free."""
        weight = Weight.of(np.asarray(array), dtype)
        if weight.key not in self._by_key:
            self._by_key[weight.key] = self.unique(name)
            self.weights[self._by_key[weight.key]] = weight
        return self._by_key[weight.key]

    def integers(self, *numbers: int) -> str:
        """Return the name of a row of integers, as shapes and axes are given."""
        return self.constant(np.array(numbers, np.int64))

    def scalar(self, value: float, dtype: DType) -> str:
        """Return the name of a number."""
        return self.constant(np.array(value, dtype.np), dtype)

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Return a value in another shape."""
        # A zero would mean "as before".
        return self.op(
            "Reshape", name, self.integers(*shape), allowzero=1 if 0 in shape else None
        )

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        """Return a value with its dimensions in another order."""
        if list(perm) == sorted(perm):
            return name
        return self.op("Transpose", name, perm=list(perm))

    def slice(self, name: str, ranges: Mapping[int, tuple[int, int, int]]) -> str:
        """Return a part of a value: start, stop and step by axis."""
        starts, stops, steps = (self.integers(*c) for c in zip(*ranges.values(), strict=True))
        return self.op("Slice", name, starts, stops, self.integers(*ranges), steps)

    def lower(self, node: Node, rule: Callable[[Builder, Node], str]) -> None:
        """Run the lowering of a node; the operator that ends it gets the node's name."""
        self._node, begin = node, len(self._operators)
        result = rule(self, node)
        made, wanted = self._operators[begin:], self._path()
        if any(result in o.outputs for o in made) and any(wanted in o.outputs for o in made):
            _swap(made, result, wanted)
            result = wanted
        self.bind(node.name, result)
        self._node = None

    def result(self, value: str, name: str) -> str:
        """Return the name under which a value leaves the graph; a value may leave twice."""
        final, made = self.unique(name), self[value]
        own = any(made in o.outputs for o in self._operators)
        if own and made not in self._final:
            self._final[made] = final
        else:
            self._operators.append(_Operator("Identity", [made], [final], {}, "", ""))
        return final

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """Yield the operators in an order in which they can run."""
        for made in self._operators:
            inputs, outputs = (
                [self._final.get(n, n) for n in names] for names in (made.inputs, made.outputs)
            )
            node = helper.make_node(
                made.op, inputs, outputs, name=made.outputs[0], **made.attrs
            )
            node.doc_string = made.source
            if self.opset >= METADATA_OPSET and made.phase:
                node.metadata_props.add(key="phase", value=made.phase)
            yield node


def _swap(made: Sequence[_Operator], a: str, b: str) -> None:
    """Exchange two names."""
    other = {a: b, b: a}
    for operator in made:
        operator.inputs = [other.get(i, i) for i in operator.inputs]
        operator.outputs = [other.get(o, o) for o in operator.outputs]
