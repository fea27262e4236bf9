"""The negative."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import elementwise

OP = elementwise("neg", 1, np.negative, aten=("aten.neg.default",))
