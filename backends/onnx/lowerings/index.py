"""Addresses given by data."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node
from pockc.ir.types import DType


def _index(b: Builder, node: Node, operand: int) -> str:
    """Return an index operand in a type that every operator takes."""
    name, dtype = b.operands(node)[operand], b.types(node)[operand].dtype
    if dtype in (DType.I64, DType.I32):
        return name
    return b.op("Cast", name, to=TensorProto.INT64)


def _zeros(b: Builder, shape: tuple[int, ...], dtype: DType) -> str:
    return b.op("Expand", b.scalar(0, dtype), b.integers(*shape))


@LOWER("take")
def _take(b: Builder, node: Node) -> str:
    return b.op("Gather", b.operands(node)[0], _index(b, node, 1), axis=node.attrs["axis"])


@LOWER("take_grad")
def _take_grad(b: Builder, node: Node) -> str:
    return _scattered(b, node, 0, node.attrs["axis"])


@LOWER("index_add")
def _index_add(b: Builder, node: Node) -> str:
    # Not scattered into the operand: each of many small rows for one place could be lost.
    return b.op("Add", b.operands(node)[0], _scattered(b, node, 1, 0))


def _scattered(b: Builder, node: Node, operand: int, axis: int) -> str:
    """Return zeros, with the rows of an operand added where the operand behind it says."""
    dy, index = b.types(node)[operand : operand + 2]
    # Rows first: one row of the index names one row of the gradient.
    count = index.size
    before, after = dy.shape[:axis], dy.shape[axis + index.rank :]
    rows = b.reshape(b.operands(node)[operand], (*before, count, *after))
    front = (axis, *(d for d in range(len(before) + 1 + len(after)) if d != axis))
    rows = b.transpose(rows, front)
    places = b.reshape(_wide(b, node, operand + 1), (count, 1))
    empty = _zeros(b, (node.type.shape[axis], *before, *after), node.type.dtype)
    total = b.op("ScatterND", empty, places, rows, reduction="add")
    return b.transpose(total, tuple(int(d) for d in np.argsort(front)))


def _wide(b: Builder, node: Node, operand: int) -> str:
    """Return an index operand as 64-bit integers, which scattering wants."""
    name = b.operands(node)[operand]
    if b.types(node)[operand].dtype is DType.I64:
        return name
    return b.op("Cast", name, to=TensorProto.INT64)


@LOWER("take_along")
def _take_along(b: Builder, node: Node) -> str:
    x = b.operands(node)[0]
    return b.op("GatherElements", x, _index(b, node, 1), axis=node.attrs["axis"])


@LOWER("take_along_grad")
def _take_along_grad(b: Builder, node: Node) -> str:
    empty, dy = _zeros(b, node.type.shape, node.type.dtype), b.operands(node)[0]
    axis = node.attrs["axis"]
    return b.op("ScatterElements", empty, _index(b, node, 1), dy, axis=axis, reduction="add")


@LOWER("put")
def _put(b: Builder, node: Node) -> str:
    x, values = b.operands(node)
    axis, indices = node.attrs["axis"], node.attrs["indices"]
    if not indices:
        return x
    if axis == 0:
        places = b.constant(np.array(indices, np.int64).reshape(-1, 1))
        return b.op("ScatterND", x, places, values)
    # Every place is read from the old values or from the new ones behind them.
    size = node.type.shape[axis]
    source = np.arange(size)
    source[list(indices)] = size + np.arange(len(indices))
    both = b.op("Concat", x, values, axis=axis)
    return b.op("Gather", both, b.constant(source.astype(np.int64)), axis=axis)


@LOWER("cumsum")
def _cumsum(b: Builder, node: Node) -> str:
    axis = b.constant(np.array(node.attrs["axis"], np.int64))
    return b.op("CumSum", *b.operands(node), axis)
