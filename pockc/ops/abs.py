"""The absolute value."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("abs", 1, np.abs, aten=("aten.abs.default",))
