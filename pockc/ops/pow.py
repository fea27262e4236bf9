"""The first operand to the power of the second."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise(
    "pow", 2, np.power, aten=("aten.pow.Tensor_Tensor",), positive=True, cost=16, cheap=False
)
