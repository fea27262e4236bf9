"""Meets a memory budget without changing what is trained.

Everything that costs nothing (the order of the kernels, masks instead of values, cheap values
computed again) is done by the passes in any case. Then blocks of the model are computed again
in backward, those first whose kernels take the least time for each byte that they keep. What
is left is to run a batch in parts and to add up their gradients: the update is that of the
whole batch, up to rounding, as long as the loss is a mean over rows. It takes a sum of
gradients for each trained tensor, and weights are read once a part: so the fewest parts that
fit are taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pockc import driver, plan
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.ir.phases import forward_end
from pockc.scheme import Config
from pockc.scheme.blocks import is_below, structure_of
from pockc.search.cost import Cost, cost_of
from pockc.search.kernel_times import KernelTimes
from pockc.units import size


@dataclass(frozen=True)
class Fitted:
    """A way to run a scheme.

    Attributes:
        config: The configuration, with `recompute` and `accumulate` as they were chosen.
        cost: What it costs.
        tried: All that was planned, in order, with its cost.
    """

    config: Config
    cost: Cost
    tried: list[tuple[Config, Cost]]


def fit(
    capture: Callable[[Config], Captured],
    config: Config,
    options: driver.Options,
    times: KernelTimes,
    memory_bytes: int,
    progress: Callable[[Config, Cost], None] = lambda *_: None,
) -> Fitted:
    """Return the configuration that fits with the fewest micro-batches and repeated blocks.

    Args:
        capture: Traces the model as a configuration wants it.
        config: What is trained, and how.
        options: The target.
        times: Times of kernels.
        memory_bytes: The budget of state, arena and runtime.
        progress: Told what was planned, one by one.

    Raises:
        UserError: [budget] Not even rows one by one fit.
    """
    fitting = _Fitting(options, times, memory_bytes, progress)
    captured = capture(config)
    for parts in _parts(captured.rows, config.accumulate):
        chosen = config.model_copy(update={"accumulate": parts})
        if parts != config.accumulate:
            captured = capture(chosen)
        found = fitting.with_fewest_repeats(captured, chosen)
        if found is not None:
            return Fitted(*found, fitting.tried)
    least, cost = min(fitting.tried, key=lambda t: t[1].memory_bytes)
    what = (
        f"nothing fits {size(memory_bytes)}: the least is {size(cost.memory_bytes)}, "
        f"with {description(least)}"
    )
    fix = "train less (`pockc search`), or allow that much"
    raise UserError(Problem("budget", what, fix=fix))


def description(config: Config) -> str:
    """Return how a step is run, as `accumulate 2, recompute 3 blocks`."""
    again = f", recompute {len(config.recompute)} blocks" if config.recompute else ""
    return f"accumulate {config.accumulate}{again}"


@dataclass
class _Fitting:
    """What all attempts have in common, and their costs."""

    options: driver.Options
    times: KernelTimes
    memory_bytes: int
    progress: Callable[[Config, Cost], None]
    tried: list[tuple[Config, Cost]] = field(default_factory=list)

    def with_fewest_repeats(
        self, captured: Captured, config: Config
    ) -> tuple[Config, Cost] | None:
        """Return the configuration with as few repeated blocks as fit, None if none does."""
        planned, cost = self._plan(captured, config)
        if self._fits(cost):
            return config, cost
        cheapest = self._cheapest_first(captured, config, planned)
        for block in cheapest:
            more = config.model_copy(update={"recompute": (*config.recompute, block)})
            _, found = self._plan(captured, more)
            if found.memory_bytes > cost.memory_bytes:
                continue  # what goes into the block takes more than what it kept
            config, cost = more, found
            if self._fits(cost):
                return self._without_idle(captured, config, cost, cheapest)
        return None

    def _without_idle(
        self, captured: Captured, config: Config, cost: Cost, candidates: list[str]
    ) -> tuple[Config, Cost]:
        """Keep again what it turned out not to be needed to drop, the dearest block first."""
        for block in reversed(candidates):
            if block in config.recompute[:-1]:
                rest = tuple(b for b in config.recompute if b != block)
                fewer = config.model_copy(update={"recompute": rest})
                _, found = self._plan(captured, fewer)
                if self._fits(found):
                    config, cost = fewer, found
        return config, cost

    def _plan(self, captured: Captured, config: Config) -> tuple[driver.Planned, Cost]:
        planned = driver.plan_captured(captured, config, self.options)
        cost = cost_of(planned, self.times, captured.micro_batches)
        self.tried.append((config, cost))
        self.progress(config, cost)
        return planned, cost

    def _fits(self, cost: Cost) -> bool:
        return cost.memory_bytes <= self.memory_bytes

    def _cheapest_first(
        self, captured: Captured, config: Config, planned: driver.Planned
    ) -> list[str]:
        """Return the blocks that keep something, by time of the forward pass per byte kept."""
        names = structure_of(captured.parameters, captured.modules).block_names
        names = tuple(n for n in names if n not in config.recompute)
        entry = next(e for e in planned.entries if e.name == "train_step")
        layout = planned.memory.entry(entry.name)
        report = plan.memory_report(planned.entries, planned.memory)
        saved = next(e for e in report.entries if e.name == entry.name).saved
        graph = entry.graph
        kept: dict[str, int] = defaultdict(int)
        ms: dict[str, float] = defaultdict(float)
        for value in saved:
            module = value.source.module if value.source else ""
            kept[_block(names, module)] += value.nbytes
        forward = {n.name: n for n in graph.nodes[: (forward_end(graph) or 0) + 1]}
        for step in layout.steps if layout else ():
            node = forward.get(step.node)
            if node is not None and node.source:
                ms[_block(names, node.source.module)] += self.times.step_ms(graph, step)
        return sorted((n for n in names if kept[n]), key=lambda n: ms[n] / kept[n])


def _block(names: tuple[str, ...], module: str) -> str:
    """Return the block that a module lies in, "" for none."""
    return next((n for n in names if module and is_below(module, n)), "")


def _parts(rows: int, first: int) -> Iterator[int]:
    """Yield the numbers of equal micro-batches, from those that were asked for on."""
    yield from (n for n in range(first, rows + 1) if rows % n == 0)
