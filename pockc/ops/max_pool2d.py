"""The largest element of every window of images (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType
from pockc.ops.base import Arrays, OpDef, OpKind, Sample, Types, arity, volume
from pockc.ops.windows import MAX_POOL_SAMPLES, padded, pool_shape, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    return types[0].with_shape(pool_shape(types[0].shape, attrs))


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x = arrays[0]
    out = pool_shape(x.shape, attrs)[2:]
    images = padded(x, out, attrs, -np.inf)
    seen = [images[:, :, rows, columns] for _, _, rows, columns in taps(out, attrs)]
    return np.asarray(np.maximum.reduce(seen))


OP = OpDef(
    "max_pool2d",
    OpKind.POOL,
    _infer,
    _reference,
    flops=lambda types, result, attrs: result.size * volume(attrs["kernel"]),
    samples=tuple(Sample((x,), Attrs(attrs)) for x, attrs in MAX_POOL_SAMPLES),
)
