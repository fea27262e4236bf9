"""Greater than, as b1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import comparison

OP = comparison("gt", np.greater, ("aten.gt.Tensor",))
