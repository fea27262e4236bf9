"""Greater than or equal, as b1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import comparison

OP = comparison("ge", np.greater_equal, ("aten.ge.Tensor",))
