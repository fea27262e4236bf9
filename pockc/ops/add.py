"""The sum."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("add", 2, np.add)
