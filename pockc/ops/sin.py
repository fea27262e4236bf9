"""The sine of radians."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "sin", 1, np.sin, aten=("aten.sin.default",), floats=True, cost=10, cheap=False
)
