"""Either or both."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import logical

OP = logical("logical_or", 2, np.logical_or, ("aten.logical_or.default",))
