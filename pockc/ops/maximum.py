"""The larger of two."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("maximum", 2, np.maximum, aten=("aten.maximum.default",))
