"""The same tensor kept in another physical order; it changes nothing but the layout."""

from __future__ import annotations

from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType, f32
from pockc.ops.base import OpDef, OpKind, Types, arity, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    return types[0].with_layout(attrs["layout"])


OP = OpDef(
    "relayout",
    OpKind.MOVE,
    _infer,
    lambda arrays, attrs: arrays[0],
    samples=(
        sample(f32(2, 3, 4, 5), layout=(0, 2, 3, 1)),
        sample(TensorType((2, 3, 4, 5), DType.F32, (0, 2, 3, 1)), layout=None),
    ),
)
