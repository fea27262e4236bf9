"""What moves elements, and what makes values out of nothing."""

from __future__ import annotations

import numpy as np

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node


@LOWER("literal")
def _literal(b: Builder, node: Node) -> str:
    return b.constant(node.attrs["value"].array, node.type.dtype)


@LOWER("full")
def _full(b: Builder, node: Node) -> str:
    number = b.scalar(node.attrs["value"], node.type.dtype)
    return _expanded(b, number, (), node.type.shape)


@LOWER("iota")
def _iota(b: Builder, node: Node) -> str:
    axis, shape = node.attrs["axis"], node.type.shape
    column = (shape[axis], *(1,) * (len(shape) - axis - 1))
    line = b.constant(np.arange(shape[axis], dtype=node.type.dtype.np).reshape(column))
    return _expanded(b, line, column, shape)


@LOWER("broadcast_to")
def _broadcast_to(b: Builder, node: Node) -> str:
    return b.op("Expand", *b.operands(node), b.integers(*node.type.shape))


def _expanded(b: Builder, name: str, have: tuple[int, ...], want: tuple[int, ...]) -> str:
    return name if have == want else b.op("Expand", name, b.integers(*want))


@LOWER("reshape")
def _reshape(b: Builder, node: Node) -> str:
    return b.reshape(b.operands(node)[0], node.type.shape)


@LOWER("permute")
def _permute(b: Builder, node: Node) -> str:
    return b.transpose(b.operands(node)[0], node.attrs["perm"])


@LOWER("relayout")
def _relayout(b: Builder, node: Node) -> str:
    (name,) = b.operands(node)  # in ONNX everything is row-major
    return name


@LOWER("slice")
def _slice(b: Builder, node: Node) -> str:
    (name,), (whole,) = b.operands(node), b.types(node)
    ranges = zip(node.attrs["starts"], node.attrs["stops"], node.attrs["steps"], strict=True)
    cut = {d: r for d, r in enumerate(ranges) if r != (0, whole.shape[d], 1)}
    return b.slice(name, cut) if cut else name


@LOWER("pad")
def _pad(b: Builder, node: Node) -> str:
    (name,) = b.operands(node)
    if node.type.rank == 0:
        return name
    amounts = b.integers(*node.attrs["low"], *node.attrs["high"])
    return b.op("Pad", name, amounts, b.scalar(node.attrs["value"], node.type.dtype))


@LOWER("concat")
def _concat(b: Builder, node: Node) -> str:
    return b.op("Concat", *b.operands(node), axis=node.attrs["axis"])
