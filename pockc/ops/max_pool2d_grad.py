"""Gradient of `max_pool2d`: (x, dy) to dx. The first of equal maxima gets all."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
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
from pockc.ops.windows import MAX_POOL_SAMPLES, inside, padded, pool_shape, taps


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    one_dtype(types)
    expected = pool_shape(types[0].shape, attrs)
    expect(
        types[1].shape == expected, f"expected gradients of shape {expected}, found {types[1]}"
    )
    return types[0]


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    x, dy = arrays
    out = dy.shape[2:]
    images = padded(x, out, attrs, -np.inf)
    places = list(taps(out, attrs))
    best = np.argmax(np.stack([images[:, :, r, c] for _, _, r, c in places]), axis=0)
    dx = np.zeros(images.shape, dy.dtype)
    for number, (_, _, rows, columns) in enumerate(places):
        dx[:, :, rows, columns] += np.where(best == number, dy, 0)
    return inside(dx, x.shape[2:], attrs)


OP = OpDef(
    "max_pool2d_grad",
    OpKind.POOL,
    _infer,
    _reference,
    flops=lambda types, result, attrs: types[1].size * volume(attrs["kernel"]),
    samples=tuple(
        Sample((x, f32(*pool_shape(x.shape, Attrs(attrs)))), Attrs(attrs))
        for x, attrs in MAX_POOL_SAMPLES
    ),
)
