"""The square root."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "sqrt", 1, np.sqrt, aten=("aten.sqrt.default",), floats=True, positive=True, cost=4
)
