"""Meets a memory budget without changing what is trained: smaller micro-batches.

Everything that costs nothing (the order of the kernels, masks instead of values, cheap
values computed again) is done by the passes in any case. What is left is to run a batch in
parts and to add up their gradients: the update is that of the whole batch, up to rounding,
as long as the loss is a mean over rows. It takes a sum of gradients for each trained
tensor, and weights are read once a part: so the fewest parts that fit are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pockc import driver
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.scheme import Config
from pockc.search.cost import Cost, cost_of
from pockc.search.kernel_times import KernelTimes


@dataclass(frozen=True)
class Fitted:
    """A way to run a scheme.

    Attributes:
        config: The configuration, with `accumulate` as it was chosen.
        cost: What it costs.
        tried: The costs of all that was tried, by the number of parts.
    """

    config: Config
    cost: Cost
    tried: dict[int, Cost]


def fit(
    capture: Callable[[Config], Captured],
    config: Config,
    options: driver.Options,
    times: KernelTimes,
    memory_bytes: int,
) -> Fitted:
    """Return the configuration with the fewest micro-batches that fits.

    Args:
        capture: Traces the model as a configuration wants it.
        config: What is trained, and how.
        options: The target.
        times: Times of kernels.
        memory_bytes: The budget of state and arena.

    Raises:
        UserError: [budget] Not even rows one by one fit.
    """
    tried: dict[int, Cost] = {}
    captured = capture(config)
    for parts in _parts(captured.rows, config.accumulate):
        chosen = config.model_copy(update={"accumulate": parts})
        if parts != config.accumulate:
            captured = capture(chosen)
        planned = driver.plan_captured(captured, chosen, options)
        tried[parts] = cost_of(planned, times, parts)
        if tried[parts].memory_bytes <= memory_bytes:
            return Fitted(chosen, tried[parts], tried)
    least = min(tried, key=lambda n: tried[n].memory_bytes)
    what = (
        f"no number of micro-batches fits {memory_bytes} bytes: the least is "
        f"{tried[least].memory_bytes} bytes, with accumulate: {least}"
    )
    fix = "train less (`pockc search`), or allow that much"
    raise UserError(Problem("budget", what, fix=fix))


def _parts(rows: int, first: int) -> Iterator[int]:
    """Yield the numbers of equal micro-batches, from those that were asked for on."""
    yield from (n for n in range(first, rows + 1) if rows % n == 0)
