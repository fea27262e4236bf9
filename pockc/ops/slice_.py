"""Elements from `starts` to before `stops`, every `steps`-th, per dimension."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    starts, stops, steps = attrs["starts"], attrs["stops"], attrs["steps"]
    expect(len(starts) == len(stops) == len(steps) == types[0].rank, "one range per dimension")
    for n, a, b, s in zip(types[0].shape, starts, stops, steps, strict=True):
        expect(0 <= a <= b <= n and s >= 1, f"range {a}:{b}:{s} of a dimension of {n}")
    shape = tuple(-(-(b - a) // s) for a, b, s in zip(starts, stops, steps, strict=True))
    return types[0].with_shape(shape)


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    ranges = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    return np.array(arrays[0][tuple(slice(*r) for r in ranges)])


OP = OpDef(
    "slice",
    OpKind.MOVE,
    _infer,
    _reference,
    samples=(
        sample(f32(5), starts=(2,), stops=(2,), steps=(1,)),
        sample(f32(5), starts=(1,), stops=(4,), steps=(1,)),
        sample(f32(4, 7), starts=(0, 1), stops=(4, 7), steps=(2, 3)),
    ),
    cheap=True,
)
