"""A profile's kernels as rows, sorted and written as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from pockc.profile.model import Kernel, Profile

_Key = Callable[[Profile, Kernel], float]

ORDERS: dict[str, _Key] = {
    "time": lambda _, k: -k.ms,
    "order": lambda _, __: 0.0,
    "gflops": lambda _, k: -k.gflops,
    "gbs": lambda _, k: -k.gbs,
    "roofline": lambda p, k: k.roofline(p.machine) or 0.0,
}
"""How kernels can be sorted; by `roofline` what is farthest from it comes first."""


def sorted_kernels(profile: Profile, order: str) -> list[Kernel]:
    """Return the calls in one of `ORDERS`; equal ones in the order of the step."""
    key = ORDERS[order]
    return sorted(profile.kernels, key=lambda k: key(profile, k))


def csv_text(profile: Profile, order: str) -> str:
    """Return a line for each kernel call below a line of titles."""
    figures = ("share", "gflops", "gbs", "roofline")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*Kernel.model_fields, *figures))
    total = sum(k.ms for k in profile.kernels)
    for kernel in sorted_kernels(profile, order):
        known = kernel.roofline(profile.machine)
        share = kernel.ms / total if total else 0.0
        derived = (share, kernel.gflops, kernel.gbs, "" if known is None else known)
        writer.writerow((*kernel.model_dump().values(), *derived))
    return out.getvalue()
