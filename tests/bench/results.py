"""What was measured, as data, and what follows from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.machine import Peak
from tests.bench.peers import OURS, OURS_ONNX


@dataclass
class Measured:
    """One peer on one case.

    Attributes:
        peer: Its name.
        version: Of the framework.
        turns_ms: Times of the steps of each turn.
        peak_bytes: Most memory during the timed steps above that after the imports.
        peak_with_start_bytes: The same since the imports, compilation and first steps included.
        first_step_s: From the start of the process to the end of the first step.
        compile_s: Compilation beforehand, elsewhere.
        artifact_bytes: Files of the model: weights, code, graphs.
        runtime_bytes: Installed packages that the process loads, without the interpreter.
        planned_bytes: What the compiler said that memory would be; 0 if it does not.
        first_loss: Of the first step.
        failed: Why there is nothing; empty if there is.
    """

    peer: str
    version: str = ""
    turns_ms: list[list[float]] = field(default_factory=list)
    peak_bytes: int = 0
    peak_with_start_bytes: int = 0
    first_step_s: float = 0.0
    compile_s: float = 0.0
    artifact_bytes: int = 0
    runtime_bytes: int = 0
    planned_bytes: int = 0
    first_loss: float = 0.0
    failed: str = ""

    @property
    def steps_ms(self) -> list[float]:
        """All times in order of size."""
        return sorted(ms for turn in self.turns_ms for ms in turn)

    @property
    def median_ms(self) -> float:
        """The median over the steps of all turns."""
        return statistics.median(self.steps_ms)

    @property
    def min_ms(self) -> float:
        """The fastest step."""
        return self.steps_ms[0]

    @property
    def p90_ms(self) -> float:
        """Nine of ten steps take at most this."""
        return percentile(self.steps_ms, 0.9)


@dataclass
class CaseResult:
    """All peers on one case, measured in turn.

    Attributes:
        key: `Case.key`.
        title: `Case.title`.
        mode: `full` or `sparse`.
        gflop: 10^9 operations of a step, two for each multiply-add.
        peak: What the machine reached before and after, the better of both.
        peers: In the order of their turns.
    """

    key: str
    title: str
    mode: str
    gflop: float
    peak: Peak
    peers: list[Measured]

    def of(self, peer: str) -> Measured | None:
        """Return what a peer reached, None if it was not measured."""
        return next((m for m in self.peers if m.peer == peer and not m.failed), None)

    def share_of_peak(self, measured: Measured) -> float:
        """Return the arithmetic that a step needs per time, as a share of the FMA peak."""
        return self.gflop / measured.median_ms * 1e3 / self.peak.gflops

    @property
    def others(self) -> list[Measured]:
        """The peers besides pockc's own."""
        return [m for m in self.peers if m.peer not in (OURS, OURS_ONNX) and not m.failed]

    @property
    def fastest(self) -> Measured | None:
        """The other peer of the shortest median."""
        return min(self.others, key=lambda m: m.median_ms, default=None)

    @property
    def smallest(self) -> Measured | None:
        """The other peer of the smallest peak."""
        return min(self.others, key=lambda m: m.peak_bytes, default=None)


@dataclass
class Results:
    """A run.

    Attributes:
        date: As 2026-11-24.
        machine: In one line.
        threads: That computed.
        revision: Of the repository.
        cases: In order.
    """

    date: str
    machine: str
    threads: int
    revision: str
    cases: list[CaseResult]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the ordered values do not exceed (nearest rank)."""
    return ordered[max(0, -(-round(share * len(ordered) * 1e6) // 10**6) - 1)]


def paired_ratio(ours: Measured, other: Measured) -> float:
    """Return our time as a part of another's: the median of the ratios within each round.

    What disturbs the machine for a while disturbs both sides of a round.
    """
    rounds = zip(ours.turns_ms, other.turns_ms, strict=False)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in rounds)


def losses_agree(measured: Sequence[Measured], share: float = 1e-3) -> bool:
    """Return whether the first losses are those of the same work."""
    losses = [m.first_loss for m in measured if not m.failed]
    return not losses or max(losses) - min(losses) <= share * abs(statistics.median(losses))


def write_results(results: Results, path: Path) -> None:
    """Write them as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Return what `write_results` wrote."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Results(**{**data, "cases": [_case(c) for c in data["cases"]]})


def _case(data: Mapping[str, Any]) -> CaseResult:
    measured = [Measured(**m) for m in data["peers"]]
    return CaseResult(**{**data, "peak": Peak(**data["peak"]), "peers": measured})


def merge(old: Results, new: Results) -> Results:
    """Return the new run with the cases that only the old one has, in the old order."""
    cases = {c.key: c for c in (*old.cases, *new.cases)}
    return Results(new.date, new.machine, new.threads, new.revision, list(cases.values()))
