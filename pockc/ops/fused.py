"""Several ops as one kernel: the body reads its operands as batch "0", "1", ..."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.graph import Graph
from pockc.ir.roles import Batch
from pockc.ir.types import TensorType
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, evaluate, expect, flops_of


def _infer(types: Types, attrs: Attrs) -> TensorType:
    body: Graph = attrs["body"]
    arity(types, len(body.inputs))
    for number, (tensor, given) in enumerate(zip(types, body.inputs, strict=True)):
        expect(
            tensor == given.type, f"operand {number} is {tensor}, the body takes {given.type}"
        )
        expect(given.role == Batch(str(number)), f"input {number} of the body is {given.role}")
    expect(len(body.outputs) == 1, "the body must have one output")
    return body.type_of(body.outputs[0].value)


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    body: Graph = attrs["body"]
    values = {i.name: a for i, a in zip(body.inputs, arrays, strict=True)}
    for node in body.nodes:
        values[node.name] = evaluate(node, [values[i] for i in node.inputs])
    return values[body.outputs[0].value]


def _flops(types: Types, result: TensorType, attrs: Attrs) -> int:
    body: Graph = attrs["body"]
    return sum(flops_of(body, node) for node in body.nodes)


OP = OpDef("fused", OpKind.FUSED, _infer, _reference, flops=_flops)
