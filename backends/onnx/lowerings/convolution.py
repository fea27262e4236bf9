"""Convolutions and their gradients, each by the fastest of the forms that standard ONNX has.

The choices were measured on ONNX Runtime; ../README.md has the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings.table import LOWERINGS as LOWER
from pockc.ir.graph import Node
from pockc.ir.types import TensorType

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """A convolution of images (N, C, H, W) with filters (K, C / groups, R, S)."""

    images: TensorType
    filters: TensorType
    result: TensorType
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @classmethod
    def of(
        cls, node: Node, images: TensorType, filters: TensorType, result: TensorType
    ) -> Windows:
        """Return the convolution that a node is or is a gradient of."""
        names = ("stride", "padding", "dilation", "groups")
        return cls(images, filters, result, *(node.attrs[n] for n in names))

    @property
    def attrs(self) -> dict[str, object]:
        """What ONNX wants to know."""
        return {
            "kernel_shape": list(self.filters.shape[2:]),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "pads": [*self.padding, *self.padding],
            "group": self.groups,
        }

    @property
    def depthwise(self) -> bool:
        """Whether every channel is filtered alone, by one filter."""
        return self.groups == self.images.shape[1] == self.filters.shape[0]

    @property
    def dense(self) -> bool:
        """Whether neighbouring windows lie side by side."""
        return self.stride == self.dilation == (1, 1)

    @property
    def pointwise(self) -> bool:
        """Whether each pixel is multiplied by one matrix, the same for all."""
        alone = self.filters.shape[2:] == (1, 1) and self.padding == (0, 0)
        return alone and self.groups == 1

    @property
    def points(self) -> int:
        """Windows of an image."""
        return math.prod(self.result.shape[2:])

    def missing(self, d: int) -> int:
        """Return how many pixels at the end of a side no window reaches."""
        reach = self.dilation[d] * (self.filters.shape[2 + d] - 1) + 1
        covered = (self.result.shape[2 + d] - 1) * self.stride[d] + reach
        return self.images.shape[2 + d] + 2 * self.padding[d] - covered


@LOWER("conv2d")
def _conv2d(b: Builder, node: Node) -> str:
    images, filters = b.types(node)
    return b.op("Conv", *b.operands(node), **Windows.of(node, images, filters, node.type).attrs)


@LOWER("conv2d_grad_input")
def _grad_input(b: Builder, node: Node) -> str:
    dy, w = b.operands(node)
    result, filters = b.types(node)
    windows = Windows.of(node, node.type, filters, result)
    if windows.pointwise and windows.dense:
        return b.op("Conv", dy, b.transpose(w, (1, 0, 2, 3)), kernel_shape=[1, 1])
    if windows.dense and (windows.depthwise or _small_filters(windows)):
        return _flipped(b, windows, dy, w)
    extra = [windows.missing(d) for d in range(2)]
    return b.op(
        "ConvTranspose",
        dy,
        w,
        output_padding=extra if any(extra) else None,
        **windows.attrs,
    )


def _small_filters(windows: Windows) -> bool:
    """Return whether turning the filters costs less than adding up overlapping windows."""
    return windows.groups == 1 and windows.filters.size <= windows.result.size


def _flipped(b: Builder, windows: Windows, dy: str, w: str) -> str:
    """Convolve the gradient with the filters turned by 180 degrees."""
    (r, s), (ph, pw) = windows.filters.shape[2:], windows.padding
    k, c = windows.filters.shape[:2]
    first, count = (w, k) if windows.depthwise else (b.transpose(w, (1, 0, 2, 3)), c)
    # A product with the reversed unit matrix: three times as fast as a slice backwards.
    back = b.constant(np.eye(r * s, dtype=windows.filters.dtype.np)[::-1])
    rows = b.op("MatMul", b.reshape(first, (k * c, r * s)), back)
    turned = b.reshape(rows, (count, k * c // count, r, s))
    margin = [r - 1 - ph, s - 1 - pw]
    if min(margin) < 0:
        # More padding than a filter reaches: those windows saw nothing but padding.
        cut = [max(0, -m) for m in margin]
        oh, ow = windows.result.shape[2:]
        dy = b.slice(dy, {2: (cut[0], oh - cut[0], 1), 3: (cut[1], ow - cut[1], 1)})
        margin = [max(0, m) for m in margin]
    return b.op(
        "Conv", dy, turned, kernel_shape=[r, s], pads=[*margin, *margin], group=windows.groups
    )


@LOWER("conv2d_grad_weight")
def _grad_weight(b: Builder, node: Node) -> str:
    x, dy = b.operands(node)
    images, result = b.types(node)
    windows = Windows.of(node, images, node.type, result)
    if windows.depthwise:
        return _depthwise(b, windows, x, dy)
    if windows.pointwise:
        return _pointwise(b, windows, x, dy)
    if windows.groups > 1:
        return _by_taps(b, windows, x, dy)
    n, channels, taps = *images.shape[:2], math.prod(node.type.shape[2:])
    if channels <= 4 and (n > 1 or taps > 9):
        return _exchanged(b, windows, x, dy)
    columns_bytes = n * channels * taps * windows.points * images.dtype.nbytes
    if windows.points < 400 or (n == 1 and columns_bytes <= _MOST_COLUMNS_BYTES):
        return _by_columns(b, windows, x, dy)
    return _by_taps(b, windows, x, dy)


def _depthwise(b: Builder, windows: Windows, x: str, dy: str) -> str:
    """Every image and channel alone: the gradient is the filter, its steps are the dilation."""
    n, c, *size = windows.images.shape
    k, _, r, s = windows.filters.shape
    alone = b.reshape(x, (1, n * c, *size))
    filters = b.reshape(dy, (n * c, 1, *windows.result.shape[2:]))
    taps = b.reshape(_correlated(b, windows, alone, filters, n * c), (n, k, 1, r, s))
    return b.op("ReduceSum", taps, b.integers(0), keepdims=0)


def _exchanged(b: Builder, windows: Windows, x: str, dy: str) -> str:
    """Channels as images and images as channels: one convolution with very large filters."""
    swap = (1, 0, 2, 3)
    found = _correlated(b, windows, b.transpose(x, swap), b.transpose(dy, swap), 1)
    return b.transpose(found, swap)


def _correlated(b: Builder, windows: Windows, images: str, filters: str, groups: int) -> str:
    """Convolve with gradients as filters: a step of the filter is a step between windows."""
    found = b.op(
        "Conv",
        images,
        filters,
        kernel_shape=list(windows.result.shape[2:]),
        strides=list(windows.dilation),
        dilations=list(windows.stride),
        pads=[*windows.padding, *windows.padding],
        group=groups,
    )
    # Pixels that no window reached would be further taps.
    more = [windows.missing(d) // windows.dilation[d] for d in range(2)]
    if not any(more):
        return found
    r, s = windows.filters.shape[2:]
    return b.slice(found, {2: (0, r, 1), 3: (0, s, 1)})


def _pointwise(b: Builder, windows: Windows, x: str, dy: str) -> str:
    n, c = windows.images.shape[:2]
    k, points = windows.filters.shape[0], windows.points
    seen = b.slice(x, _taps(windows)[0]) if windows.stride != (1, 1) else x
    # Either a product for each image and then their sum, or the images side by side: it
    # depends on which is less to move.
    if n > 1 and k * c <= points * (k + c):
        given = b.reshape(dy, (n, k, points))
        taken = b.transpose(b.reshape(seen, (n, c, points)), (0, 2, 1))
        total = b.op("ReduceSum", b.op("MatMul", given, taken), b.integers(0), keepdims=0)
        return b.reshape(total, (k, c, 1, 1))
    rows = []
    for value, channels in ((dy, k), (seen, c)):
        first = b.transpose(value, (1, 0, 2, 3)) if n > 1 else value
        rows.append(b.reshape(first, (channels, n * points)))
    return b.reshape(b.op("Gemm", *rows, transB=1), (k, c, 1, 1))


_MOST_COLUMNS_BYTES = 16 << 20


def _by_columns(b: Builder, windows: Windows, x: str, dy: str) -> str:
    """One product, with what every tap sees of all images in a row of its own."""
    n, c = windows.images.shape[:2]
    k, _, r, s = windows.filters.shape
    images = b.transpose(_padded(b, windows, x), (1, 0, 2, 3))
    shape = (c, 1, n * windows.points)
    seen = [b.reshape(b.slice(images, cut), shape) for cut in _taps(windows)]
    columns = b.reshape(b.op("Concat", *seen, axis=1), (c * r * s, n * windows.points))
    given = b.reshape(b.transpose(dy, (1, 0, 2, 3)), (k, n * windows.points))
    return b.reshape(b.op("Gemm", given, columns, transB=1), (k, c, r, s))


def _by_taps(b: Builder, windows: Windows, x: str, dy: str) -> str:
    """A product for each tap, and their sums over the images."""
    n, groups, points = windows.images.shape[0], windows.groups, windows.points
    k, c, r, s = windows.filters.shape
    images = _padded(b, windows, x)
    given = b.reshape(dy, (n, groups, k // groups, points))
    seen = [b.reshape(b.slice(images, cut), (n, groups, c, points)) for cut in _taps(windows)]
    parts = [b.op("MatMul", given, b.transpose(v, (0, 1, 3, 2))) for v in seen]
    joined = b.op("Concat", *(b.reshape(p, (n, k, 1, c)) for p in parts), axis=2)
    total = b.op("ReduceSum", joined, b.integers(0), keepdims=0)
    return b.reshape(b.transpose(total, (0, 2, 1)), (k, c, r, s))


def _padded(b: Builder, windows: Windows, x: str) -> str:
    ph, pw = windows.padding
    if not (ph or pw):
        return x
    amounts = b.integers(0, 0, ph, pw, 0, 0, ph, pw)
    return b.op("Pad", x, amounts, b.scalar(0.0, windows.images.dtype))


def _taps(windows: Windows) -> list[dict[int, tuple[int, int, int]]]:
    """Return where padded images meet each tap of every window, row by row."""
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    (oh, ow), (r, s) = windows.result.shape[2:], windows.filters.shape[2:]
    return [
        {
            2: (i * dh, i * dh + (oh - 1) * sh + 1, sh),
            3: (j * dw, j * dw + (ow - 1) * sw + 1, sw),
        }
        for i in range(r)
        for j in range(s)
    ]
