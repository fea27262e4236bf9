"""What else a kernel could be: its generator's choices, each changed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import tvm

from pockc.backends.base import Kernel
from pockc.backends.schedule import Schedule
from pockc.backends.tvm.lowering import Lowered, lower_kernel
from pockc.backends.tvm.targets import Target

MORE_WORKSPACE_BYTES = 1 << 18
"""A candidate may need so much more memory than the kernel: speed is not bought with memory."""


def candidates(kernel: Kernel, target: Target) -> list[Kernel]:
    """Return the kernels that differ from this one in one choice, each with its own symbol.

    What a choice does not change, and what needs more memory, is not among them.
    """
    base = lower_kernel(kernel, target)
    most = sum(base.workspace_bytes) + MORE_WORKSPACE_BYTES
    seen = {_fingerprint(base, kernel.symbol)}
    found = []
    for variant in _variants(kernel, base):
        lowered = lower_kernel(variant, target)
        fingerprint = _fingerprint(lowered, variant.symbol)
        # One choice may take away what another was made from, as a wider tile does with rows.
        possible = not lowered.not_offered and sum(lowered.workspace_bytes) <= most
        if fingerprint in seen or not possible:
            continue
        seen.add(fingerprint)
        found.append(replace(variant, workspace_bytes=lowered.workspace_bytes))
    return found


def _variants(kernel: Kernel, base: Lowered) -> Iterator[Kernel]:
    for name, offer in sorted(base.offered.items()):
        for other in offer.others:
            schedule = Schedule.of({**kernel.schedule.choices, name: other})
            text = f"{kernel.symbol} {schedule}"
            symbol = f"{kernel.symbol}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            yield replace(kernel, symbol=symbol, schedule=schedule)


def _fingerprint(lowered: Lowered, symbol: str) -> str:
    """Return what is equal for equal code, whatever the kernel is called."""
    return str(tvm.ir.save_json(lowered.function)).replace(symbol, "")
