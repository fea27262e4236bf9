"""Gradient of `conv2d` with respect to its images; by itself, transposed convolution."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType
from pockc.ops.base import (
    Arrays,
    OpDef,
    OpKind,
    Sample,
    Types,
    arity,
    expect,
    one_dtype,
    volume,
)
from pockc.ops.windows import (
    CONV_SAMPLES,
    conv_shape,
    grouped,
    inside,
    multiply,
    padded,
    result_of,
    taps,
)


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    x = TensorType(tuple(attrs["input_shape"]), one_dtype(types))
    expected = conv_shape(x, types[1], attrs)
    expect(
        types[0].shape == expected, f"expected gradients of shape {expected}, found {types[0]}"
    )
    return x


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    dy, w = arrays
    groups, (k, c, r, s) = attrs["groups"], w.shape
    n, channels, h, wd = attrs["input_shape"]
    out = dy.shape[2:]
    window = attrs.but(kernel=(r, s))
    dx = padded(np.zeros((n, channels, h, wd), dy.dtype), out, window, 0.0)
    filters = np.swapaxes(w.reshape(groups, k // groups, c, r, s), 1, 2)
    seen = grouped(dy, groups)
    for i, j, rows, columns in taps(out, window):
        part = multiply(filters[:, :, :, i, j], seen)
        dx[:, :, rows, columns] += part.reshape(n, channels, *out)
    return inside(dx, (h, wd), attrs)


OP = OpDef(
    "conv2d_grad_input",
    OpKind.CONTRACTION,
    _infer,
    _reference,
    flops=lambda types, result, attrs: 2 * types[0].size * volume(types[1].shape[1:]),
    samples=tuple(
        Sample((result_of(x, w, attrs), w), Attrs({**attrs, "input_shape": x.shape}))
        for x, w, attrs in CONV_SAMPLES
    ),
)
