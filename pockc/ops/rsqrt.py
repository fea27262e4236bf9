"""One over the square root."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "rsqrt",
    1,
    lambda x: 1 / np.sqrt(x),
    aten=("aten.rsqrt.default",),
    floats=True,
    positive=True,
    cost=4,
)
