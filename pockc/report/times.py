"""Times of a profile, taken together for pictures."""

from __future__ import annotations

from collections.abc import Iterable

from pockc.ir.phases import PHASES
from pockc.profile import Kernel
from pockc.report.net import block_of


def by_module(kernels: Iterable[Kernel], most: int = 16) -> dict[str, dict[str, float]]:
    """Return ms by module and phase, in the order of the forward pass.

    Modules are taken together by block if there are more than `most`; what no module is known
    for, as the loss, comes last, and the shortest of too many blocks as "others".
    """
    calls = list(kernels)
    names = dict.fromkeys(k.module for k in calls if k.module)
    fine = len(names) <= most
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found.setdefault(name if fine else block_of(name), dict.fromkeys(PHASES, 0.0))
    for call in calls:
        name = call.module if fine else block_of(call.module)
        row = found.setdefault(name if call.module else "", dict.fromkeys(PHASES, 0.0))
        row[call.phase] = row.get(call.phase, 0.0) + call.ms
    if len(found) > most:
        ranked = sorted(found, key=lambda n: -sum(found[n].values()))
        rest = set(ranked[most - 1 :])
        others = {p: sum(found[n][p] for n in rest) for p in PHASES}
        found = {n: row for n, row in found.items() if n not in rest}
        found["others"] = others
    return {n or "loss and others": row for n, row in found.items()}
