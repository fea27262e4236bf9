"""A copy of the first operand in which the second stands at `indices` along `axis`."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, one_dtype, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 2)
    one_dtype(types)
    axis, indices, shape = attrs["axis"], attrs["indices"], types[0].shape
    expect(0 <= axis < types[0].rank, f"axis {axis} of {types[0]}")
    expect(all(0 <= i < shape[axis] for i in indices), f"indices beyond {shape[axis]}")
    expect(len(set(indices)) == len(indices), "indices repeat")
    expected = (*shape[:axis], len(indices), *shape[axis + 1 :])
    expect(types[1].shape == expected, f"expected values of shape {expected}, found {types[1]}")
    return types[0]


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    result = np.array(arrays[0])
    place: list[slice | list[int]] = [slice(None)] * result.ndim
    place[attrs["axis"]] = list(attrs["indices"])
    result[tuple(place)] = arrays[1]
    return result


OP = OpDef(
    "put",
    OpKind.INDEX,
    _infer,
    _reference,
    samples=(
        sample(f32(5), f32(0), axis=0, indices=()),
        sample(f32(5, 3), f32(2, 3), axis=0, indices=(4, 1)),
        sample(f32(2, 6, 3), f32(2, 3, 3), axis=1, indices=(0, 1, 2)),
    ),
)
