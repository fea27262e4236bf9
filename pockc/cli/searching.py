"""The runs of the commands `plan` and `search`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pockc.cli.console import say, show, table
from pockc.cli.places import check_file_target
from pockc.cli.text import milliseconds, size
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc import driver
    from pockc.frontend.loading import UserModel
    from pockc.scheme import Config
    from pockc.search.cost import Cost
    from pockc.search.evolve import Budget

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
          "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}  # fmt: skip
_TIMES = {"": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3}


def read_bytes(text: str | None) -> int | None:
    """Return the bytes that a text names, as `64MiB`.

    Raises:
        UserError: [budget] It is no amount.
    """
    return None if text is None else int(_quantity(text, _UNITS, "64MiB"))


def read_ms(text: str | None) -> float | None:
    """Return the milliseconds that a text names, as `50ms`.

    Raises:
        UserError: [budget] It is no time.
    """
    return None if text is None else _quantity(text, _TIMES, "50ms")


def _quantity(text: str, units: Mapping[str, float], example: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in units or float(found[1]) <= 0:
        known = ", ".join(u for u in units if u)
        what = f"cannot read '{text}' as a budget"
        raise UserError(Problem("budget", what, fix=f"write it as {example}; units: {known}"))
    return float(found[1]) * units[found[2].lower()]


@dataclass(frozen=True)
class Asked:
    """What `plan` and `search` have in common.

    Attributes:
        model: How the user names the model.
        sparse_update: The configuration file.
        overrides: Options of the command line that win over the file.
        batch: Rows of a step; None for those of the example inputs.
        memory_budget: As `64MiB`.
        latency_budget: As `50ms`.
        kernel_times: A file of measured times.
        target: The machine.
        threads: Threads to divide work for.
    """

    model: str
    sparse_update: Path | None
    overrides: Mapping[str, Any]
    batch: int | None
    memory_budget: str | None
    latency_budget: str | None
    kernel_times: Path | None
    target: str
    threads: int | None

    def budget(self) -> Budget:
        """Return the budgets as numbers."""
        from pockc.search.evolve import Budget

        return Budget(read_bytes(self.memory_budget), read_ms(self.latency_budget))

    def config(self) -> Config:
        """Return the configuration."""
        from pockc import driver

        return driver.read_config(self.sparse_update, self.overrides)

    def user(self) -> UserModel:
        """Return the model."""
        from pockc.frontend.batch import with_batch
        from pockc.frontend.loading import load_model

        user = load_model(self.model)
        return user if self.batch is None else with_batch(user, self.batch)

    def options(self) -> driver.Options:
        """Return the target's options."""
        from pockc import driver

        return driver.Options(target=self.target, threads=self.threads)


def run_plan(asked: Asked, *, fit: bool, output: Path | None) -> None:
    """Print what a scheme costs; with `fit`, choose how to run it within the budget."""
    from pockc import driver
    from pockc.search.cost import cost_of
    from pockc.search.fit import description
    from pockc.search.fit import fit as fitted
    from pockc.search.kernel_times import KernelTimes
    from pockc.search.output import config_text

    budget, config, options = asked.budget(), asked.config(), asked.options()
    if fit and budget.memory_bytes is None:
        fix = "add --memory-budget 64MiB"
        raise UserError(Problem("budget", "--fit needs a memory budget", fix=fix))
    if output is not None:
        check_file_target(output)
    user = asked.user()
    from pockc.backends.tvm import targets

    target = targets.get(options.target)
    times = KernelTimes.read(target, options.threads or target.cores, asked.kernel_times)
    if fit and budget.memory_bytes is not None:
        chosen = fitted(
            lambda c: driver.capture_model(user, c, options),
            config,
            options,
            times,
            budget.memory_bytes,
        )
        for tried, cost in chosen.tried:
            taken = f"{size(cost.memory_bytes)}, {milliseconds(cost.step_ms)}"
            say(f"{description(tried):<36} {taken}")
        config, cost = chosen.config, chosen.cost
        if output is not None:
            output.write_text(config_text(config), encoding="utf-8")
            say(f"wrote {output}")
    else:
        captured = driver.capture_model(user, config, options)
        planned = driver.plan_captured(captured, config, options)
        cost = cost_of(planned, times, captured.micro_batches)
        _show_plan(planned, cost, times)
    if not budget.allows(cost):
        raise UserError(_over(asked, budget, cost, config, user))


def _show_plan(planned: driver.Planned, cost: Cost, times: Any) -> None:  # noqa: ANN401
    made = table("Planned, nothing built", "", "", "", right=(1,))
    made.add_row(
        "state", size(cost.state_bytes), "what is trained, and the optimizer's tensors"
    )
    for entry in planned.memory.entries:
        made.add_row(f"  arena of {entry.name}", size(entry.arena_bytes))
    made.add_row("arena", size(cost.arena_bytes), "shared by the entries")
    made.add_row("memory", size(cost.memory_bytes), "state and arena")
    known = sum(k in times.measured for k in planned.kernels)
    note = f"estimated; {known} of {len(planned.kernels)} kernels were measured"
    made.add_row("time of a step", milliseconds(cost.step_ms), note)
    made.caption = planned.scheme.origin or None
    show(made)


def _over(asked: Asked, budget: Budget, cost: Cost, config: Config, user: UserModel) -> Problem:
    """Say by how much a budget is missed, and which presets would meet it."""
    from pockc import driver
    from pockc.search.cost import cost_of
    from pockc.search.kernel_times import KernelTimes

    options = asked.options()
    captured = driver.capture_model(user, config, options)
    from pockc.backends.tvm import targets

    target = targets.get(options.target)
    times = KernelTimes.read(target, options.threads or target.cores, asked.kernel_times)
    fitting = []
    for preset in ("last:4", "last:3", "last:2", "pockengine", "bias", "last:1", "head"):
        other = config.model_copy(update={"preset": preset, "update": None})
        try:
            planned = driver.plan_captured(captured, other, options)
        except UserError:
            continue  # the model has not so many blocks
        found = cost_of(planned, times, captured.micro_batches)
        if budget.allows(found):
            fitting.append((found.memory_bytes, preset))
    near = ", ".join(f"{p} ({size(n)})" for n, p in sorted(fitting, reverse=True)[:3])
    what = f"a step takes {size(cost.memory_bytes)} and about {milliseconds(cost.step_ms)}"
    asked_for = [a for a in (asked.memory_budget, asked.latency_budget) if a]
    fix = f"presets that fit: {near or 'none'}; or let `pockc search` or --fit find a way"
    return Problem("budget", f"{what}, more than {' and '.join(asked_for)}", fix=fix)
