"""Equality, as b1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import comparison

OP = comparison("eq", np.equal, ("aten.eq.Tensor",))
