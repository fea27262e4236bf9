"""Windows over images."""

from __future__ import annotations

import math

import numpy as np

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node
from pockc.ops.windows import pool_counts


def _window(node: Node, size: tuple[int, ...], out: tuple[int, ...]) -> dict[str, object]:
    """Return the window, padded at the end so that the last ones, which may hang over, fit."""
    kernel, stride, pad = (node.attrs[n] for n in ("kernel", "stride", "padding"))
    dilation = node.attrs.get("dilation", (1, 1))
    ends = [
        max(0, (out[d] - 1) * stride[d] + dilation[d] * (kernel[d] - 1) + 1 - size[d] - pad[d])
        for d in range(2)
    ]
    window: dict[str, object] = {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*pad, *ends],
    }
    return window | ({"dilations": list(dilation)} if dilation != (1, 1) else {})


@LOWER("max_pool2d")
def _max_pool2d(b: Builder, node: Node) -> str:
    window = _window(node, b.types(node)[0].shape[2:], node.type.shape[2:])
    return b.op("MaxPool", *b.operands(node), **window)


@LOWER("max_pool2d_grad")
def _max_pool2d_grad(b: Builder, node: Node) -> str:
    (x, dy), (images, given) = b.operands(node), b.types(node)
    window = _window(node, images.shape[2:], given.shape[2:])
    # An index counts through all images; the first of equal maxima is the one it names.
    places = b.ops("MaxPool", x, results=2, **window)[1]
    empty = b.op("Expand", b.scalar(0.0, images.dtype), b.integers(images.size))
    flat = [b.reshape(v, (given.size,)) for v in (places, dy)]
    total = b.op("ScatterElements", empty, *flat, axis=0, reduction="add")
    return b.reshape(total, images.shape)


@LOWER("avg_pool2d")
def _avg_pool2d(b: Builder, node: Node) -> str:
    size, out = b.types(node)[0].shape[2:], node.type.shape[2:]
    window = _window(node, size, out)
    mean = b.op("AveragePool", *b.operands(node), count_include_pad=1, **window)
    area = math.prod(node.attrs["kernel"])
    share = area / pool_counts(size, out, node.attrs)
    if (share == 1).all():
        return mean
    return b.op("Mul", mean, b.constant(share.astype(node.type.dtype.np)))


@LOWER("avg_pool2d_grad")
def _avg_pool2d_grad(b: Builder, node: Node) -> str:
    (dy,), (given,) = b.operands(node), b.types(node)
    n, c, h, w = node.type.shape
    oh, ow = given.shape[2:]
    counts = pool_counts((h, w), (oh, ow), node.attrs)
    share = b.op("Mul", dy, b.constant((1 / counts).astype(node.type.dtype.np)))
    kernel, stride, pad = (node.attrs[k] for k in ("kernel", "stride", "padding"))
    if kernel == stride and pad == (0, 0) and (oh * kernel[0], ow * kernel[1]) == (h, w):
        spread = b.reshape(share, (n, c, oh, 1, ow, 1))
        whole = b.integers(n, c, oh, kernel[0], ow, kernel[1])
        return b.reshape(b.op("Expand", spread, whole), (n, c, h, w))
    # Each window gives its share to all it covers: a transposed convolution with ones, which
    # is cut where windows hang over.
    ones = b.constant(np.ones((1, 1, *kernel), node.type.dtype.np))
    full = [(o - 1) * s + k for o, s, k in zip((oh, ow), stride, kernel, strict=True)]
    spread = b.op(
        "ConvTranspose",
        b.reshape(share, (n * c, 1, oh, ow)),
        ones,
        kernel_shape=list(kernel),
        strides=list(stride),
    )
    ends = [max(0, p + size - f) for p, size, f in zip(pad, (h, w), full, strict=True)]
    if any(ends):
        amounts = b.integers(0, 0, 0, 0, 0, 0, *ends)
        spread = b.op("Pad", spread, amounts, b.scalar(0.0, node.type.dtype))
    cut = {2: (pad[0], pad[0] + h, 1), 3: (pad[1], pad[1] + w, 1)}
    return b.reshape(b.slice(spread, cut), (n, c, h, w))
