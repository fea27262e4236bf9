"""What a scheme costs, read off the plan that the compiler makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from pockc import driver
from pockc.search.kernel_times import KernelTimes
from pockc.search.prediction import step_time


@dataclass(frozen=True, slots=True)
class Cost:
    """Private memory and time of one training step.

    Attributes:
        state_bytes: What lasts: trained parameters, the optimizer's tensors, buffers.
        arena_bytes: What a step needs besides: saved activations and temporaries.
        step_ms: Time of a step, all micro-batches together.
        runtime_bytes: At most what the process that runs it takes besides.
    """

    state_bytes: int
    arena_bytes: int
    step_ms: float
    runtime_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """What a budget is compared with; frozen weights are mapped from a file besides."""
        return self.state_bytes + self.arena_bytes + self.runtime_bytes


def cost_of(planned: driver.Planned, times: KernelTimes, micro_batches: int = 1) -> Cost:
    """Return the cost of a plan: its memory exactly, its time as `times` expects it."""
    ms = step_time(planned, times, micro_batches).ms
    memory = planned.memory
    return Cost(memory.state.nbytes, memory.arena_bytes, ms, planned.runtime.nbytes)
