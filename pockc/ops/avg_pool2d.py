"""The mean of every window of images (N, C, H, W), with the padding or without."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType
from pockc.ops.base import Arrays, OpDef, OpKind, Sample, Types, arity, volume
from pockc.ops.windows import AVG_POOL_SAMPLES, padded, pool_counts, pool_shape, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    return types[0].with_shape(pool_shape(types[0].shape, attrs))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x = arrays[0]
    out = pool_shape(x.shape, attrs)[2:]
    images = padded(x, out, attrs, 0.0)
    total = sum(images[:, :, rows, columns] for _, _, rows, columns in taps(out, attrs))
    return np.asarray(total / pool_counts(x.shape[2:], out, attrs).astype(x.dtype), x.dtype)


OP = OpDef(
    "avg_pool2d",
    OpKind.POOL,
    _infer,
    _reference,
    flops=lambda types, result, attrs: result.size * volume(attrs["kernel"]),
    samples=tuple(Sample((x,), Attrs(attrs)) for x, attrs in AVG_POOL_SAMPLES),
)
