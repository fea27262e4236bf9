"""The largest whole number that is not above."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("floor", 1, np.floor, aten=("aten.floor.default",), floats=True)
