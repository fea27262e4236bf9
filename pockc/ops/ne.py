"""Inequality, as b1."""

from __future__ import annotations

import numpy as np

from pockc.ops.base import comparison

OP = comparison("ne", np.not_equal, ("aten.ne.Tensor",))
