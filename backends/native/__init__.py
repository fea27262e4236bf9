"""The native part of every backend: tables as C, the link of `step.so`, device programs."""

from __future__ import annotations

from pockc.backends.native.device import (
    COMMAND,
    LIBRARY,
    build_device,
    copy_headers,
    link_static,
)
from pockc.backends.native.emit import KernelPlan, emit, plan_kernels, product_of
from pockc.backends.native.link import HOST, NativeTarget, link
from pockc.backends.native.machine import host_for, machine_for
from pockc.backends.native.tables import table_source

__all__ = [
    "COMMAND",
    "HOST",
    "LIBRARY",
    "KernelPlan",
    "NativeTarget",
    "build_device",
    "copy_headers",
    "emit",
    "host_for",
    "link",
    "link_static",
    "machine_for",
    "plan_kernels",
    "product_of",
    "table_source",
]
