"""Not."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import logical

OP = logical("logical_not", 1, np.logical_not, ("aten.logical_not.default",))
