"""What to train instead if a scheme does not meet its budget: the nearest presets that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pockc.cli.text import milliseconds, size
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc.driver import Options
    from pockc.frontend.captured import Captured
    from pockc.scheme import Config
    from pockc.search.cost import Cost
    from pockc.search.evolve import Budget
    from pockc.search.kernel_times import KernelTimes

SHOWN = 3


@dataclass
class Presets:
    """The presets of a model and what they cost; each is planned when it is asked for.

    Attributes:
        captured: The model.
        config: The optimizer and everything else but what is trained.
        options: The target.
        times: Times of kernels.
    """

    captured: Captured
    config: Config
    options: Options
    times: KernelTimes
    _known: dict[str, Cost | None] = field(default_factory=dict)

    def cost(self, preset: str) -> Cost | None:
        """Return what a preset costs, None if the model has not its structure."""
        from pockc import driver
        from pockc.search.cost import cost_of

        if preset not in self._known:
            config = self.config.model_copy(update={"preset": preset, "update": None})
            try:
                planned = driver.plan_captured(self.captured, config, self.options)
            except UserError:
                self._known[preset] = None
            else:
                micro_batches = self.captured.micro_batches
                self._known[preset] = cost_of(planned, self.times, micro_batches)
        return self._known[preset]

    def fitting(self, budget: Budget) -> list[tuple[str, Cost]]:
        """Return the presets within a budget, the one that uses most of it first."""
        names = ("full", "pockengine", "bias", "head", *self._last_blocks(budget))
        known = [(n, self.cost(n)) for n in names]
        found = [(n, c) for n, c in known if c is not None and budget.allows(c)]
        return sorted(found, key=lambda f: budget.load(f[1]), reverse=True)

    def _last_blocks(self, budget: Budget) -> Iterator[str]:
        """Yield `last:N` with the most blocks that fit: the more, the dearer."""
        from pockc.scheme.blocks import structure_of

        blocks = structure_of(self.captured.parameters, self.captured.modules).blocks
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            cost = self.cost(f"last:{middle}")
            if cost is not None and budget.allows(cost):
                low = middle
            else:
                high = middle - 1
        if low:
            yield f"last:{low}"


def over_budget(budget: Budget, cost: Cost, presets: Presets) -> Problem:
    """Say by how much a budget is missed, and which presets meet it."""
    missed = []
    if budget.memory_bytes is not None and cost.memory_bytes > budget.memory_bytes:
        missed.append(f"{size(cost.memory_bytes)}, more than {size(budget.memory_bytes)}")
    if budget.step_ms is not None and cost.step_ms > budget.step_ms:
        taken, allowed = milliseconds(cost.step_ms), milliseconds(budget.step_ms)
        missed.append(f"about {taken}, more than {allowed}")
    fitting = [f"{n} ({_told(c)})" for n, c in presets.fitting(budget)[:SHOWN]]
    least = presets.cost("head")
    if fitting:
        fix = f"presets that fit: {', '.join(fitting)}; or let `pockc search` find a scheme"
    elif least is not None:
        fix = f"no preset fits: head takes {_told(least)}; allow that, or a smaller --batch"
    else:
        fix = "allow more, or a smaller --batch"
    if budget.memory_bytes is not None and cost.memory_bytes > budget.memory_bytes:
        fix += "; or keep the scheme and let --fit compute blocks again, or split the batch"
    return Problem("budget", f"a step takes {' and '.join(missed)}", fix=fix)


def _told(cost: Cost) -> str:
    return f"{size(cost.memory_bytes)}, {milliseconds(cost.step_ms)}"
