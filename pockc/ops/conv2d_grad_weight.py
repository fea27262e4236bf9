"""Gradient of `conv2d` with respect to its filters, of shape `weight_shape`."""

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
from pockc.ops.windows import CONV_SAMPLES, conv_shape, grouped, padded, result_of, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    w = TensorType(tuple(attrs["weight_shape"]), one_dtype(types))
    expected = conv_shape(types[0], w, attrs)
    expect(
        types[1].shape == expected, f"expected gradients of shape {expected}, found {types[1]}"
    )
    return w


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, dy = arrays
    groups, (k, c, r, s) = attrs["groups"], attrs["weight_shape"]
    out = dy.shape[2:]
    window = attrs.but(kernel=(r, s))
    images = padded(x, out, window, 0.0)
    given = grouped(dy, groups)
    dw = np.zeros((groups, k // groups, c, r, s), x.dtype)
    for i, j, rows, columns in taps(out, window):
        seen = grouped(images[:, :, rows, columns], groups)
        dw[:, :, :, i, j] = np.matmul(given, np.swapaxes(seen, 2, 3)).sum(0)
    return dw.reshape(k, c, r, s)


OP = OpDef(
    "conv2d_grad_weight",
    OpKind.CONTRACTION,
    _infer,
    _reference,
    flops=lambda types, result, attrs: 2 * types[1].size * volume(result.shape[1:]),
    samples=tuple(
        Sample((x, result_of(x, w, attrs)), Attrs({**attrs, "weight_shape": w.shape}))
        for x, w, attrs in CONV_SAMPLES
    ),
)
