"""Less than or equal, as b1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import comparison

OP = comparison("le", np.less_equal, ("aten.le.Tensor",))
