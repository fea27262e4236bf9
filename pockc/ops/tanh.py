"""The hyperbolic tangent."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "tanh", 1, np.tanh, aten=("aten.tanh.default",), floats=True, cost=10, cheap=False
)
