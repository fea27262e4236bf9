"""Gradient of `avg_pool2d` with respect to its images, of shape `input_shape`."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import Arrays, OpDef, OpKind, Sample, Types, arity, expect, volume
from pockc.ops.windows import AVG_POOL_SAMPLES, inside, padded, pool_counts, pool_shape, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    expected = pool_shape(tuple(attrs["input_shape"]), attrs)
    expect(
        types[0].shape == expected, f"expected gradients of shape {expected}, found {types[0]}"
    )
    return types[0].with_shape(tuple(attrs["input_shape"]))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    dy = arrays[0]
    shape, out = attrs["input_shape"], dy.shape[2:]
    share = dy / pool_counts(shape[2:], out, attrs).astype(dy.dtype)
    dx = padded(np.zeros(shape, dy.dtype), out, attrs, 0.0)
    for _, _, rows, columns in taps(out, attrs):
        dx[:, :, rows, columns] += share
    return inside(dx, shape[2:], attrs)


OP = OpDef(
    "avg_pool2d_grad",
    OpKind.POOL,
    _infer,
    _reference,
    flops=lambda types, result, attrs: types[0].size * volume(attrs["kernel"]),
    samples=tuple(
        Sample(
            (f32(*pool_shape(x.shape, Attrs(attrs))),), Attrs({**attrs, "input_shape": x.shape})
        )
        for x, attrs in AVG_POOL_SAMPLES
    ),
)
