"""An array known at compile time."""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs, Literal
from pockc.ir.types import TensorType
from pockc.ops.base import OpDef, OpKind, Types, arity, expect, sample


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 0)
    expect(isinstance(attrs["value"], Literal), "value must be a literal")
    found: TensorType = attrs["value"].type
    return found


OP = OpDef(
    "literal",
    OpKind.GENERATOR,
    _infer,
    lambda arrays, attrs: np.asarray(attrs["value"].array),
    samples=(
        sample(value=Literal(np.array([1.5, -2.0, 0.25], np.float32))),
        sample(value=Literal(np.arange(40, dtype=np.int64).reshape(5, 8))),
    ),
)
