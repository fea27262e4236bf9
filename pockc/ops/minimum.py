"""The smaller of two."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("minimum", 2, np.minimum, aten=("aten.minimum.default",))
