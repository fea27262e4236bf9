"""e to the power of the operand."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("exp", 1, np.exp, aten=("aten.exp.default",), floats=True, cost=8, cheap=False)
