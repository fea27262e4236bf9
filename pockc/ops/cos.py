"""The cosine of radians."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "cos", 1, np.cos, aten=("aten.cos.default",), floats=True, cost=10, cheap=False
)
