"""Convolution of images (N, C, H, W) with filters (K, C / groups, R, S), padded alike."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import Arrays, OpDef, OpKind, Sample, Types, arity, one_dtype, volume
from pockc.ops.windows import CONV_SAMPLES, conv_shape, grouped, multiply, padded, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    return TensorType(conv_shape(types[0], types[1], attrs), one_dtype(types))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, w = arrays
    groups, (k, c, r, s) = attrs["groups"], w.shape
    n, _, oh, ow = conv_shape(f32(*x.shape), f32(*w.shape), attrs)
    window = attrs.but(kernel=(r, s))
    images = padded(x, (oh, ow), window, 0.0)
    filters = w.reshape(groups, k // groups, c, r, s)
    y = np.zeros((n, groups, k // groups, oh * ow), x.dtype)
    for i, j, rows, columns in taps((oh, ow), window):
        seen = grouped(images[:, :, rows, columns], groups)
        y += multiply(filters[:, :, :, i, j], seen)
    return y.reshape(n, k, oh, ow)


OP = OpDef(
    "conv2d",
    OpKind.CONTRACTION,
    _infer,
    _reference,
    flops=lambda types, result, attrs: 2 * result.size * volume(types[1].shape[1:]),
    samples=tuple(Sample((x, w), Attrs(attrs)) for x, w, attrs in CONV_SAMPLES),
)
