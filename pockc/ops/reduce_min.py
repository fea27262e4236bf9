"""The smallest along `axes`."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import reduction

OP = reduction("reduce_min", np.min)
