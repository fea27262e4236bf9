"""Convolutions and their gradients."""

from __future__ import annotations

import math

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node


def _window(node: Node) -> dict[str, object]:
    ph, pw = node.attrs["padding"]
    return {
        "strides": list(node.attrs["stride"]),
        "dilations": list(node.attrs["dilation"]),
        "pads": [ph, pw, ph, pw],
        "group": node.attrs["groups"],
    }


@LOWER("conv2d")
def _conv2d(b: Builder, node: Node) -> str:
    kernel = list(b.types(node)[1].shape[2:])
    return b.op("Conv", *b.operands(node), kernel_shape=kernel, **_window(node))


@LOWER("conv2d_grad_input")
def _grad_input(b: Builder, node: Node) -> str:
    dy, w = b.types(node)
    extra = []
    for d in range(2):
        stride, pad = node.attrs["stride"][d], node.attrs["padding"][d]
        reach = node.attrs["dilation"][d] * (w.shape[2 + d] - 1) + 1
        least = (dy.shape[2 + d] - 1) * stride + reach - 2 * pad
        # What no window reached: the gradient is zero there.
        extra.append(node.type.shape[2 + d] - least)
    return b.op(
        "ConvTranspose",
        *b.operands(node),
        kernel_shape=list(w.shape[2:]),
        output_padding=extra if any(extra) else None,
        **_window(node),
    )


@LOWER("conv2d_grad_weight")
def _grad_weight(b: Builder, node: Node) -> str:
    x, dy = b.operands(node)
    groups = node.attrs["groups"]
    k, c, r, s = node.type.shape
    n, channels = b.types(node)[0].shape[:2]
    out = b.types(node)[1].shape[2:]
    images = _padded(b, node, x)
    if groups == channels == k:
        return _depthwise(b, node, images, dy)
    points = math.prod(out)
    given = b.reshape(dy, (n, groups, k // groups, points))
    taps = []
    for cut in _taps(node, out):
        seen = b.reshape(b.slice(images, cut), (n, groups, c, points))
        taps.append(b.op("MatMul", given, b.transpose(seen, (0, 1, 3, 2))))
    stacked = [b.reshape(t, (n, k, c, 1)) for t in taps]
    joined = stacked[0] if len(stacked) == 1 else b.op("Concat", *stacked, axis=3)
    total = b.op("ReduceSum", joined, b.integers(0), keepdims=0)
    return b.reshape(total, (k, c, r, s))


def _depthwise(b: Builder, node: Node, images: str, dy: str) -> str:
    out = b.types(node)[1].shape[2:]
    k, _, r, s = node.type.shape
    taps = [
        b.op(
            "ReduceSum", b.op("Mul", b.slice(images, cut), dy), b.integers(0, 2, 3), keepdims=0
        )
        for cut in _taps(node, out)
    ]
    stacked = [b.reshape(t, (k, 1)) for t in taps]
    joined = stacked[0] if len(stacked) == 1 else b.op("Concat", *stacked, axis=1)
    return b.reshape(joined, (k, 1, r, s))


def _padded(b: Builder, node: Node, x: str) -> str:
    ph, pw = node.attrs["padding"]
    if not (ph or pw):
        return x
    amounts = b.integers(0, 0, ph, pw, 0, 0, ph, pw)
    return b.op("Pad", x, amounts, b.scalar(0.0, node.type.dtype))


def _taps(node: Node, out: tuple[int, ...]) -> list[dict[int, tuple[int, int, int]]]:
    """Return where padded images meet each tap of every window, row by row."""
    (sh, sw), (dh, dw) = node.attrs["stride"], node.attrs["dilation"]
    r, s = node.type.shape[2:]
    return [
        {
            2: (i * dh, i * dh + (out[0] - 1) * sh + 1, sh),
            3: (j * dw, j * dw + (out[1] - 1) * sw + 1, sw),
        }
        for i in range(r)
        for j in range(s)
    ]
