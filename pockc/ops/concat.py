"""The operands one after the other along `axis`."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, expect, one_dtype, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    axis = attrs["axis"]
    expect(bool(types), "takes at least one operand")
    one_dtype(types)
    expect(0 <= axis < types[0].rank, f"axis {axis} of {types[0]}")
    rest = {t.shape[:axis] + t.shape[axis + 1 :] for t in types}
    expect(
        len(rest) == 1 and len({t.rank for t in types}) == 1, "shapes differ beside the axis"
    )
    total = sum(t.shape[axis] for t in types)
    return types[0].with_shape((*types[0].shape[:axis], total, *types[0].shape[axis + 1 :]))


OP = OpDef(
    "concat",
    OpKind.MOVE,
    _infer,
    lambda arrays, attrs: np.concatenate(arrays, attrs["axis"]),
    samples=(
        sample(f32(3), axis=0),
        sample(f32(2, 3), f32(2, 1), f32(2, 4), axis=1),
        sample(f32(2, 3), f32(1, 3), axis=0),
    ),
)
