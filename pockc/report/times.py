"""What pictures of time need of a profile: kernels with their work, the machine's roof."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pockc.ir.phases import PHASES
from pockc.report.net import block_of


@dataclass(frozen=True)
class KernelTime:
    """One kernel call of a step.

    Attributes:
        kernel: The C symbol.
        op: What it computes.
        module: The user's module, "" if none is known.
        source: The user's line, likewise.
        phase: forward, backward or update.
        ms: Median time.
        flops: Operations, two for each multiply-add.
        nbytes: Operands and result.
        roofline: Share of what the machine could reach for this work, 0 to 1; None if unknown.
    """

    kernel: str
    op: str
    module: str
    source: str
    phase: str
    ms: float
    flops: int
    nbytes: int
    roofline: float | None

    @property
    def gflops(self) -> float:
        """10^9 operations per second."""
        return self.flops / self.ms * 1e-6 if self.ms else 0.0

    @property
    def gbs(self) -> float:
        """10^9 bytes per second."""
        return self.nbytes / self.ms * 1e-6 if self.ms else 0.0


@dataclass(frozen=True)
class StepTimes:
    """A measured training step.

    Attributes:
        machine: Where it ran.
        threads: Threads that ran kernels.
        step_ms: Median time of a step.
        p95_ms: Time that 95 % of the steps do not exceed.
        load_ms: Time to open the artifact.
        first_ms: Time of the first step.
        rss_bytes: Most resident memory of the process; None if it was not told.
        kernels: The calls of a step in order.
        peak_gflops: What the machine reaches in multiply-adds; None if it was not measured.
        peak_gbs: What it reads and writes per second, likewise.
    """

    machine: str
    threads: int
    step_ms: float
    p95_ms: float
    load_ms: float
    first_ms: float
    rss_bytes: int | None
    kernels: Sequence[KernelTime]
    peak_gflops: float | None
    peak_gbs: float | None

    def phase_ms(self) -> dict[str, float]:
        """Return the time of each part of the step."""
        return {p: sum(k.ms for k in self.kernels if k.phase == p) for p in PHASES}


def by_module(kernels: Iterable[KernelTime], most: int = 16) -> dict[str, dict[str, float]]:
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
