"""The product."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("mul", 2, np.multiply, aten=("aten.mul.Tensor",))
