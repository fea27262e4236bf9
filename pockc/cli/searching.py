"""The runs of the commands `plan` and `search`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pockc.cli.compiling import with_batch
from pockc.cli.console import progress_bar, say, show, table, warn
from pockc.cli.data import read_data
from pockc.cli.places import check_file_target
from pockc.cli.text import milliseconds, size
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc import driver
    from pockc.frontend.loading import UserModel
    from pockc.scheme import Config
    from pockc.search.contribution import Contributions
    from pockc.search.cost import Cost
    from pockc.search.evolve import Budget
    from pockc.search.session import Outcome, Session

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


@dataclass(frozen=True)
class SearchRequest:
    """What `pockc search` was asked to do.

    Attributes:
        asked: Model, budgets, target.
        data: What to train on.
        held_out: What to evaluate on; None holds a part of the data out.
        output: Where the configuration goes.
        contributions: Where results of fine-tunes are kept.
        proxy: Which proxy; divides contributions within blocks.
        fine_tune: Whether candidates are fine-tuned.
        epochs: Of each fine-tune.
        head_lr_scale: The learning rate of the head is multiplied by it.
        generations: Of the evolution.
        seed: Of all choices.
        measure: Whether kernels are measured on this machine.
        processes: How many fine-tunes at once.
    """

    asked: Asked
    data: Path
    held_out: Path | None
    output: Path
    contributions: Path | None
    proxy: str
    fine_tune: bool
    epochs: int
    head_lr_scale: float
    generations: int
    seed: int
    measure: bool
    processes: int | None


def run_search(request: SearchRequest) -> None:
    """Find a scheme within the budgets, and write it with its Pareto front."""
    from pockc import driver
    from pockc.search.evolve import Settings
    from pockc.search.session import Session

    asked = request.asked
    budget, config, options = asked.budget(), asked.config(), asked.options()
    if budget.memory_bytes is None and budget.step_ms is None:
        fix = "add --memory-budget 64MiB, --latency-budget 50ms, or both"
        raise UserError(Problem("budget", "a search needs a budget", fix=fix))
    check_file_target(request.output)
    with progress_bar() as bar:
        captured = driver.capture_model(asked.user(), config, options)
        session = Session.of(
            captured,
            config,
            options,
            head_lr_scale=request.head_lr_scale,
            times_file=asked.kernel_times,
        )
        gains = _gains(request, session, config, bar)
        settings = Settings(generations=request.generations, seed=request.seed)
        outcome = session.search(
            gains, budget, settings, lambda done, total: bar.update("search", done, total)
        )
    _write(request, session, outcome, config)


def _gains(
    request: SearchRequest,
    session: Session,
    config: Config,
    bar: Any,  # noqa: ANN401
) -> Contributions:
    from pockc.search import contribution
    from pockc.search.finetune import FineTune, analyse
    from pockc.search.session import digest_of
    from pockc.search.store import Store

    specs = _specs(session)
    train = read_data(request.data, specs, "train")
    scores = session.scores(train, request.proxy)
    if request.measure:
        full = tuple(len(u.menu) - 1 for u in session.space.units)
        for genes in ((0,) * len(full), full):
            session.measure(genes, lambda a: _batch(a, train))
        session.times.write(request.asked.kernel_times)
    if not request.fine_tune:
        return contribution.from_proxy(session.space, session.captured, scores)
    train, held_out = _parted(request, specs, train)
    settings = {
        "model": request.asked.model,
        "data": digest_of(train),
        "held_out": digest_of(held_out),
        "epochs": request.epochs,
        "optimizer": config.optimizer.spec,
        "head_lr_scale": request.head_lr_scale,
        "seed": request.seed,
    }
    path = request.contributions or request.output.with_suffix(".contributions.json")
    store = Store.open(path, settings)
    how = FineTune(
        request.asked.model,
        config,
        session.options,
        request.head_lr_scale,
        train,
        held_out,
        request.epochs,
        request.seed,
    )
    analyse(
        contribution.candidates(session.space),
        store,
        how,
        lambda done, total, note: bar.update("fine-tunes", done, total, note),
        request.processes,
    )
    return contribution.from_results(session.space, session.captured, scores, store.results)


def _specs(session: Session) -> Any:  # noqa: ANN401
    from pockc.runtime.manifest import InputSpec

    captured = session.captured
    return [
        InputSpec(i.name, i.dtype.value, i.shape, i.rows)
        for i in (*captured.inputs, *captured.targets)
    ]


def _batch(artifact: Any, data: Mapping[str, np.ndarray]) -> list[np.ndarray]:  # noqa: ANN401
    specs = artifact.train_inputs
    rows = artifact.batch_rows
    return [np.resize(data[s.name], (rows, *data[s.name].shape[1:])) for s in specs]


def _parted(
    request: SearchRequest,
    specs: Any,  # noqa: ANN401
    train: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what to train on and what to evaluate on: every fifth row if nothing is given."""
    if request.held_out is not None:
        return train, read_data(request.held_out, specs, "eval")
    rows = len(next(iter(train.values())))
    held = np.arange(rows) % 5 == 4
    return {k: v[~held] for k, v in train.items()}, {k: v[held] for k, v in train.items()}


def _write(request: SearchRequest, session: Session, outcome: Outcome, config: Config) -> None:
    from pockc.search.output import config_text
    from pockc.search.pareto import write_csv, write_png

    best, cost = outcome.best, outcome.best.cost
    made = session.space.config(config, best.genes)
    comments = (
        f"found by pockc search: {size(cost.memory_bytes)} planned, "
        f"{milliseconds(cost.step_ms)} a step (estimated)",
        f"contributions {best.contribution:.4f}; greedy {outcome.greedy.contribution:.4f}",
    )
    request.output.write_text(config_text(made, comments), encoding="utf-8")
    csv_path = request.output.with_suffix(".pareto.csv")
    png_path = request.output.with_suffix(".pareto.png")
    write_csv(outcome.front, best, csv_path)
    write_png(outcome.front, best, request.asked.budget().memory_bytes, png_path)
    table_made = table("Found", "block", "trained")
    for unit, choice in zip(
        session.space.units, session.space.choices(best.genes), strict=True
    ):
        if choice.trains:
            names = [w.removeprefix(unit.name + ".") for w in choice.weights]
            share = "" if choice.ratio == 1 or not names else f" ({choice.ratio:g} of channels)"
            table_made.add_row(
                unit.name, ", ".join([*(["bias"] if choice.bias else []), *names]) + share
            )
    show(table_made)
    say(
        f"memory       {size(cost.memory_bytes)} planned (state {size(cost.state_bytes)}, "
        f"arena {size(cost.arena_bytes)})"
    )
    say(f"time         {milliseconds(cost.step_ms)} a step, estimated")
    say(f"contribution {best.contribution:.4f}, greedy {outcome.greedy.contribution:.4f}")
    say(f"looked at    {outcome.seen} schemes, {session.estimator.plans} planned exactly")
    say(f"wrote {request.output}, {csv_path}, {png_path}")
    if session.estimator.conflicts:
        warn(
            f"{session.estimator.conflicts} pieces of plans differed; estimates took the larger"
        )
