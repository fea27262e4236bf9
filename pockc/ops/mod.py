"""What is left by a division that rounds down; it has the sign of the divisor."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("mod", 2, np.mod, aten=("aten.remainder.Tensor",), positive=True, cost=4)
