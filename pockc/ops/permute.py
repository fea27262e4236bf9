"""The dimensions in another order: dimension d of the result is `perm[d]` of the operand."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    perm = tuple(attrs["perm"])
    expect(sorted(perm) == list(range(types[0].rank)), f"{perm} does not permute {types[0]}")
    return types[0].with_shape(tuple(types[0].shape[d] for d in perm))


OP = OpDef(
    "permute",
    OpKind.VIEW,
    _infer,
    lambda arrays, attrs: np.transpose(arrays[0], attrs["perm"]),
    samples=(
        sample(f32(), perm=()),
        sample(f32(2, 3), perm=(1, 0)),
        sample(f32(2, 3, 4, 5), perm=(0, 2, 3, 1)),
    ),
    cheap=True,
)
