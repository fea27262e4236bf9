"""Reductions along axes."""

from __future__ import annotations

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node

_OPERATORS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}


@LOWER(*_OPERATORS)
def _reduce(b: Builder, node: Node) -> str:
    (name,) = b.operands(node)
    if not node.attrs["axes"]:
        return name
    axes, keep = b.integers(*node.attrs["axes"]), int(node.attrs["keepdims"])
    return b.op(_OPERATORS[node.op], name, axes, keepdims=keep)


@LOWER("argmax")
def _argmax(b: Builder, node: Node) -> str:
    return b.op("ArgMax", *b.operands(node), axis=node.attrs["axis"], keepdims=0)
