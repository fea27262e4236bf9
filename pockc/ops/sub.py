"""The difference."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("sub", 2, np.subtract)
