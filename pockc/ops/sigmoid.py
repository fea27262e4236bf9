"""The logistic function, 1 / (1 + exp(-x))."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # exp of a negative number only: it cannot overflow.
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))


OP = elementwise(
    "sigmoid", 1, _sigmoid, aten=("aten.sigmoid.default",), floats=True, cost=10, cheap=False
)
