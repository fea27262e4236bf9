"""One element per index: result[..i..] = x[..index[..i..]..] along `axis`."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    axis = attrs["axis"]
    expect(
        types[1].dtype.is_integer, f"the index must be integers, found {types[1].dtype.value}"
    )
    expect(
        0 <= axis < types[0].rank == types[1].rank, f"axis {axis} of {types[0]} and {types[1]}"
    )
    fits = all(
        a == b
        for d, (a, b) in enumerate(zip(types[0].shape, types[1].shape, strict=True))
        if d != axis
    )
    expect(fits, f"{types[0]} and {types[1]} differ beside axis {axis}")
    return types[0].with_shape(types[1].shape)


OP = OpDef(
    "take_along",
    OpKind.INDEX,
    _infer,
    lambda arrays, attrs: np.take_along_axis(arrays[0], arrays[1], attrs["axis"]),
    samples=(
        sample(f32(5), i64(3), axis=0, bound=5),
        sample(f32(4, 6), i64(4, 1), axis=1, bound=6),
        sample(f32(4, 3, 2), i64(7, 3, 2), axis=0, bound=4),
    ),
)
