"""The natural logarithm."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "log",
    1,
    np.log,
    aten=("aten.log.default",),
    floats=True,
    positive=True,
    cost=8,
    cheap=False,
)
