"""The native part of every backend: plan tables as C, and the link of `step.so`."""

from __future__ import annotations

from pockc.backends.native.device import build_device
from pockc.backends.native.link import HOST, NativeTarget, link
from pockc.backends.native.tables import table_source

__all__ = ["HOST", "NativeTarget", "build_device", "link", "table_source"]
