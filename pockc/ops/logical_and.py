"""Both."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import logical

OP = logical("logical_and", 2, np.logical_and, ("aten.logical_and.default",))
