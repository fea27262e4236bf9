"""The native part of every backend: plan tables as C, and the link of `step.so`."""

from __future__ import annotations

from pockc.backends.native.device import build_device
from pockc.backends.native.emit import emit, product_of
from pockc.backends.native.link import HOST, NativeTarget, link
from pockc.backends.native.machine import machine_for
from pockc.backends.native.tables import table_source

__all__ = [
    "HOST",
    "NativeTarget",
    "build_device",
    "emit",
    "link",
    "machine_for",
    "product_of",
    "table_source",
]
