"""The native part of every backend: plan tables as C, and the link of `step.so`."""

from __future__ import annotations

from pockc.backends.native.link import HOST, NativeTarget, link
from pockc.backends.native.tables import GRAD_SUM_SLOT, table_source, tensor_name

__all__ = ["GRAD_SUM_SLOT", "HOST", "NativeTarget", "link", "table_source", "tensor_name"]
