"""From one finished graph to one ONNX model: names, inputs, outputs, phases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from pockc.backends.base import unlowered
from pockc.backends.onnx.builder import METADATA_OPSET, Builder
from pockc.backends.onnx.elements import ELEMENTS
from pockc.backends.onnx.lowerings import LOWERINGS
from pockc.backends.onnx.patterns import ways
from pockc.backends.onnx.weights import initializers
from pockc.errors import UserError
from pockc.ir.graph import Graph
from pockc.ir.phases import step_phases
from pockc.ir.roles import (
    Batch,
    Buffer,
    InputRole,
    Loss,
    OptState,
    OutputRole,
    Param,
    Scalar,
    role_fields,
    state_written,
)
from pockc.ir.types import TensorType
from pockc.plan.names import tensor_name
from pockc.plan.types import StateKey

PORTS = "pockc.io"
"""Metadata of a model: what its inputs and outputs are for, as JSON."""

NEW = "new."
"""Before the name of a tensor of the state: what it is after the call."""


@dataclass(frozen=True)
class Draft:
    """A model whose large constants have no place in a file yet."""

    builder: Builder
    inputs: tuple[tuple[str, InputRole], ...]
    outputs: tuple[tuple[str, OutputRole], ...]

    def types(self) -> list[tuple[InputRole, TensorType]]:
        """Return what the model takes."""
        kept = {role for _, role in self.inputs}
        return [(i.role, i.type) for i in self.builder.graph.inputs if i.role in kept]


def draft(
    graph: Graph, state: frozenset[StateKey], values: Mapping[str, np.ndarray], opset: int
) -> Draft:
    """Lower a graph.

    Args:
        graph: In the form of operators.
        state: What may change between calls: inputs of the model. Other parameters and buffers
            become constants.
        values: Their content.
        opset: Version of the operators.

    Raises:
        UserError: [no-lowering] for every node whose op is not lowered.
    """
    problems = tuple(unlowered(graph, LOWERINGS.names, "onnx"))
    if problems:
        raise UserError(*problems)
    builder = Builder(graph, opset, phase_of=step_phases(graph))
    chosen = ways(graph)
    read = {r for way in chosen.values() for r in way.reads} | graph.output_values
    inputs = []
    for i in graph.inputs:
        if isinstance(i.role, Batch):
            read.add(i.name)  # a caller gives the whole batch
        if i.name not in read:
            continue
        if isinstance(i.role, Param | Buffer) and i.role not in state:
            name = builder.constant(values[i.role.name], i.type.dtype, i.role.name)
        else:
            name = builder.unique(_input_name(i.role))
            inputs.append((name, i.role))
        builder.bind(i.name, name)
    for node in graph.nodes:
        if node.name in chosen:
            builder.lower(node, chosen[node.name].rule)
    outputs = [(builder.result(o.value, _output_name(o.role)), o.role) for o in graph.outputs]
    return Draft(builder, tuple(inputs), tuple(outputs))


def _input_name(role: InputRole) -> str:
    return role.name if isinstance(role, Batch | Scalar) else tensor_name(role)


def _output_name(role: OutputRole) -> str:
    written = state_written(role)
    if written is not None and not isinstance(written, Batch | Scalar):
        return NEW + tensor_name(written)
    return "loss" if isinstance(role, Loss) else ".".join((role.keyword, *role_fields(role)))


def finish(
    drafted: Draft,
    places: Mapping[str, int],
    producer: str,
    constants: Sequence[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    """Return the model, its large constants at their places in the file of weights.

    Args:
        drafted: The model.
        places: Where each large constant begins in the file.
        producer: Who made it.
        constants: Its constants, if not those that it was drafted with.
    """
    builder = drafted.builder
    graph = builder.graph
    types = dict(drafted.types())
    inputs = [_value(name, types[role]) for name, role in drafted.inputs]
    outputs = [
        _value(name, graph.type_of(o.value))
        for (name, _), o in zip(drafted.outputs, graph.outputs, strict=True)
    ]
    weights = constants
    if weights is None:
        weights = initializers(builder.weights, places)
    made = helper.make_graph(list(builder.nodes()), graph.name, inputs, outputs, weights)
    model = helper.make_model(
        made,
        producer_name=producer,
        opset_imports=[helper.make_opsetid("", builder.opset)],
        ir_version=10 if builder.opset >= METADATA_OPSET else 9,
    )
    helper.set_model_props(model, {PORTS: json.dumps(_ports(drafted), indent=1)})
    return model


def _value(name: str, tensor: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENTS[tensor.dtype], tensor.shape)


def _ports(drafted: Draft) -> dict[str, list[dict[str, str]]]:
    """Return what every input and output is for, as the runtime reads it."""
    inputs = [
        {"name": name, "role": role.keyword, "tensor": _input_name(role)}
        for name, role in drafted.inputs
    ]
    outputs = []
    for name, role in drafted.outputs:
        written = state_written(role)
        port = {"name": name, "role": role.keyword}
        if isinstance(written, Param | Buffer | OptState):
            port["tensor"] = tensor_name(written)
        outputs.append(port)
    return {"inputs": inputs, "outputs": outputs}
