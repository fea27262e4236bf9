"""The quotient of floating point numbers."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("div", 2, np.divide, aten=("aten.div.Tensor",), floats=True, cost=4)
