"""Matrix products."""

from __future__ import annotations

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node


@LOWER("matmul")
def _matmul(b: Builder, node: Node) -> str:
    return b.op("MatMul", *b.operands(node))
