"""The running sum along `axis`."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    expect(0 <= attrs["axis"] < types[0].rank, f"axis {attrs['axis']} of {types[0]}")
    return types[0].with_layout(None)


OP = OpDef(
    "cumsum",
    OpKind.INDEX,
    _infer,
    lambda arrays, attrs: np.cumsum(arrays[0], attrs["axis"], dtype=arrays[0].dtype),
    flops=lambda types, result, attrs: result.size,
    samples=(
        sample(f32(5), axis=0),
        sample(f32(3, 4), axis=1),
        sample(i64(2, 5), axis=0, bound=9),
    ),
)
