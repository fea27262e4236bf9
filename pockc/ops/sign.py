"""-1, 0 or 1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "sign",
    1,
    np.sign,
    aten=(
        "aten.sign.default",
        "aten.sgn.default",
    ),
)
