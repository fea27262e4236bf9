"""The runs of the commands `plan` and `search`."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pockc.cli.console import progress_bar, say, show, table, warn
from pockc.cli.nearest import Presets, over_budget
from pockc.cli.places import check_file_target
from pockc.cli.step_time import measure_missing, time_rows
from pockc.cli.text import milliseconds, size
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc import driver
    from pockc.frontend.captured import Captured
    from pockc.frontend.loading import UserModel
    from pockc.scheme import Config
    from pockc.search.cost import Cost
    from pockc.search.evolve import Budget
    from pockc.search.kernel_times import KernelTimes
    from pockc.search.prediction import StepTime

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
          "kB": 10**3, "MB": 10**6, "GB": 10**9}  # fmt: skip
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}


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
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    known = {u.lower(): factor for u, factor in units.items()}
    if found is None or found[2].lower() not in known or float(found[1]) <= 0:
        what = f"cannot read '{text}' as a budget"
        fix = f"write a number above 0 with its unit, as {example}; units: {', '.join(units)}"
        raise UserError(Problem("budget", what, fix=fix))
    return float(found[1]) * known[found[2].lower()]


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
        kernel_times: Files of measured times and profiles.
        target: The machine.
        threads: Threads to divide work for.
        measure: Whether kernels are measured on this machine.
    """

    model: str
    sparse_update: Path | None
    overrides: Mapping[str, Any]
    batch: int | None
    memory_budget: str | None
    latency_budget: str | None
    kernel_times: tuple[Path, ...]
    target: str
    threads: int | None
    measure: bool = False

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

    def times(self) -> KernelTimes:
        """Return what is known of the machine's kernels."""
        from pockc.backends.tvm import targets
        from pockc.search.kernel_times import KernelTimes

        target = targets.get(self.target)
        threads = self.threads or target.cores
        # What is measured may go to a file that is not there yet.
        paths = [p for p in self.kernel_times if p.exists() or not self.measure]
        if self.kernel_times and not paths:
            return KernelTimes(target, threads)
        return KernelTimes.read(target, threads, paths)

    def times_target(self) -> Path | None:
        """Return where new times go: the last file that is no profile, None for the default."""
        from pockc.search.times_file import is_profile

        return next((p for p in reversed(self.kernel_times) if not is_profile(p)), None)


def run_plan(asked: Asked, *, fit: bool, output: Path | None, json: bool = False) -> None:
    """Say what a scheme costs; with `fit`, choose how to run it within the budget.

    Raises:
        UserError: [budget] It does not fit; names the nearest presets that do.
    """
    from pockc import driver
    from pockc.search.cost import cost_of
    from pockc.search.kernel_model import Basis
    from pockc.search.output import config_text
    from pockc.search.prediction import step_time

    budget, config, options = asked.budget(), asked.config(), asked.options()
    _check_fit(budget, fit, output)
    user = asked.user()
    times = asked.times()
    if fit:
        config = _fitted(asked, user, config, times)
    with progress_bar() as bar:
        bar.update("capture", 0, None)
        captured = driver.capture_model(user, config, options)
        bar.update("plan", 0, None)
        planned = driver.plan_captured(captured, config, options)
        if asked.measure:
            measure_missing(asked, captured, config, planned, times, bar)
        cost = cost_of(planned, times, captured.micro_batches)
        predicted = step_time(planned, times, captured.micro_batches)
    if json:
        data = _plan_data(planned, cost, config, budget.allows(cost))
        say(json_text.dumps(data | {"measured_share": predicted.share(Basis.MEASURED)}))
    else:
        title = "Planned, and measured" if asked.measure else "Planned, nothing built"
        _show_plan(title, planned, cost, predicted)
    if not budget.allows(cost):
        with progress_bar() as bar:
            bar.update("presets", 0, None)
            presets = Presets(captured, config, options, times)
            problem = over_budget(budget, cost, presets)
        raise UserError(problem)
    if output is not None:
        output.write_text(config_text(config), encoding="utf-8")
        (warn if json else say)(f"wrote {output}")


def _check_fit(budget: Budget, fit: bool, output: Path | None) -> None:
    """Refuse options that would do nothing, and a place where nothing can be written."""
    if fit and budget.memory_bytes is None:
        fix = "add --memory-budget 64MiB"
        raise UserError(Problem("budget", "--fit needs a memory budget", fix=fix))
    if output is not None:
        if not fit:
            what = "-o writes what --fit has chosen"
            raise UserError(Problem("option", what, fix="add --fit, or leave -o out"))
        check_file_target(output)


def _fitted(asked: Asked, user: UserModel, config: Config, times: KernelTimes) -> Config:
    """Return how a scheme is run within the memory budget; tell what was tried for it."""
    from pockc import driver
    from pockc.search.fit import description, fit

    options, memory_bytes = asked.options(), asked.budget().memory_bytes or 0

    def capture(config: Config) -> Captured:
        return driver.capture_model(user, config, options)

    tried: list[str] = []
    with progress_bar() as bar:

        def note(config: Config, cost: Cost) -> None:
            taken = f"{size(cost.memory_bytes)}, {milliseconds(cost.step_ms)}"
            tried.append(f"{description(config):<36} {taken}")
            bar.update("plans", len(tried), None, tried[-1])

        try:
            return fit(capture, config, options, times, memory_bytes, note).config
        finally:
            for line in tried:
                warn(line)


def _show_plan(title: str, planned: driver.Planned, cost: Cost, predicted: StepTime) -> None:
    made = table(title, "", "", "", right=(1,))
    made.add_row(
        "state", size(cost.state_bytes), "what is trained, and the optimizer's tensors"
    )
    for entry in planned.memory.entries:
        made.add_row(f"  arena of {entry.name}", size(entry.arena_bytes))
    made.add_row("arena", size(cost.arena_bytes), "shared by the entries")
    made.add_row("runtime", size(cost.runtime_bytes), "at most: tables, threads, the process")
    made.add_row("memory", size(cost.memory_bytes), "what a budget is compared with")
    for row in time_rows(predicted):
        made.add_row(*row)
    made.caption = planned.scheme.origin or None
    show(made)


def _plan_data(
    planned: driver.Planned, cost: Cost, config: Config, within: bool
) -> dict[str, Any]:
    """Return what a plan says, as JSON values."""
    return {
        "memory_bytes": cost.memory_bytes,
        "state_bytes": cost.state_bytes,
        "arena_bytes": cost.arena_bytes,
        "runtime_bytes": cost.runtime_bytes,
        "step_ms": cost.step_ms,
        "within_budget": within,
        "trained_tensors": len(planned.scheme.trained),
        "accumulate": config.accumulate,
        "recompute": list(config.recompute),
        "origin": planned.scheme.origin,
    }
