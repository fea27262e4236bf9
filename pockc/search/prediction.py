"""The time of a planned step, and how much of it was measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pockc import driver
from pockc.search.kernel_model import Basis
from pockc.search.kernel_times import KernelTimes

STEP_ENTRIES = ("train_step", "apply_update")


@dataclass(frozen=True, slots=True)
class StepTime:
    """The predicted time of a training step.

    Attributes:
        ms: All micro-batches together.
        by_basis: The parts of it by what they rest on; they sum up to `ms`.
        kernels: Number of different kernels by what their times rest on.
    """

    ms: float
    by_basis: Mapping[Basis, float]
    kernels: Counter[Basis]

    def share(self, basis: Basis) -> float:
        """Return the part of the time that rests on something, 0 to 1."""
        return self.by_basis.get(basis, 0.0) / self.ms if self.ms else 0.0


def step_time(planned: driver.Planned, times: KernelTimes, micro_batches: int = 1) -> StepTime:
    """Return the time that a plan's training step is expected to take.

    Args:
        planned: The plan.
        times: Times of kernels on the machine.
        micro_batches: How many calls of `train_step` make one update.
    """
    by_basis: dict[Basis, float] = defaultdict(float)
    seen: dict[str, Basis] = {}
    for entry in planned.entries:
        steps = planned.memory.entry(entry.name)
        if entry.name not in STEP_ENTRIES or steps is None:
            continue
        runs = micro_batches if entry.name == "train_step" else 1
        for step in steps.steps:
            expected = times.expected(entry.graph, step)
            by_basis[expected.basis] += runs * expected.ms
            seen[step.kernel] = expected.basis
    return StepTime(sum(by_basis.values()), dict(by_basis), Counter(seen.values()))
