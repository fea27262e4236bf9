"""The run of the command `search`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pockc.cli.console import Bar, is_terminal, progress_bar, say, show, table, warn
from pockc.cli.data import read_data
from pockc.cli.places import check_file_target, check_source
from pockc.cli.searching import Asked
from pockc.cli.text import milliseconds, size
from pockc.errors import Problem, UserError

if TYPE_CHECKING:
    from pockc.runtime.manifest import InputSpec
    from pockc.search.analysis import Analysis
    from pockc.search.contribution import Contributions
    from pockc.search.evolve import Found
    from pockc.search.proxy import Scores
    from pockc.search.session import Outcome, Session

Arrays = dict[str, np.ndarray]
SECONDS_BETWEEN_LINES = 30.0
_GAINS = {"loss": "less loss on held-out rows", "accuracy": "more accuracy on held-out rows"}
"""What a contribution is measured in."""


@dataclass(frozen=True)
class SearchRequest:
    """What `pockc search` was asked to do.

    Attributes:
        asked: Model, budgets, target.
        data: What to train on.
        held_out: What to evaluate on; None holds a part of the data out.
        output: Where the configuration goes.
        contributions: Where results of fine-tunes are kept.
        proxy: Which proxy; says what weights bring that are not fine-tuned.
        fine_tune: Whether candidates are fine-tuned.
        detail: What is fine-tuned by itself: block, weight or ratio.
        score: Whether a gain is one of accuracy or of loss.
        most: How many weights are fine-tuned; None is all.
        epochs: Of each fine-tune.
        repeats: Runs of each fine-tune.
        finalists: Schemes that are fine-tuned as a whole before one is chosen.
        head_lr_scale: The learning rate of the head is multiplied by it.
        generations: Of the evolution.
        seed: Of all choices.
        processes: How many fine-tunes at once.
    """

    asked: Asked
    data: Path
    held_out: Path | None
    output: Path
    contributions: Path | None
    proxy: str
    fine_tune: bool
    detail: str
    score: str
    most: int | None
    epochs: int
    repeats: int
    finalists: int
    head_lr_scale: float
    generations: int
    seed: int
    processes: int | None


@dataclass
class _Progress:
    """A bar on a terminal; elsewhere a line now and then, with the time left."""

    bar: Bar
    _began: dict[str, tuple[float, int]] = field(default_factory=dict)
    _last: float = 0.0

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.bar.update(stage, done, total, note)
        now = time.monotonic()
        began, before = self._began.setdefault(stage, (now, done))
        if is_terminal() or (now - self._last < SECONDS_BETWEEN_LINES and done < total):
            return
        self._last = now
        spent = now - began
        left = spent / (done - before) * (total - done) if done > before else None
        text = "" if left is None or done == total else f", about {left / 60:.0f} min left"
        warn(f"{stage}: {done} of {total} in {spent:.0f} s{text}")


def run_search(request: SearchRequest) -> None:
    """Find a scheme within the budgets, and write it with its Pareto front."""
    _check(request)
    try:
        with progress_bar() as bar:
            found = _search(request, bar)
    except KeyboardInterrupt:
        if request.fine_tune:
            warn(f"interrupted; {_store_path(request)} keeps what is known: the same command "
                 "goes on")  # fmt: skip
        raise
    _write(request, found)


@dataclass(frozen=True)
class _Search:
    """What a search has found.

    Attributes:
        session: The model.
        outcome: The schemes.
        best: The one to write.
        reached: What schemes reached that were fine-tuned as a whole.
        rows: How many rows were trained on and evaluated on.
    """

    session: Session
    outcome: Outcome
    best: Found
    reached: Mapping[tuple[int, ...], float]
    rows: tuple[int, int]


def _search(request: SearchRequest, bar: Bar) -> _Search:
    """Do what can fail first, then what takes long."""
    from pockc import driver
    from pockc.search.evolve import Settings
    from pockc.search.session import Session

    asked = request.asked
    budget, config, options = asked.budget(), asked.config(), asked.options()
    progress = _Progress(bar)
    user = asked.user()
    bar.update("capture", 0, None)
    captured = driver.capture_model(user, config, options)
    bar.update("capture", 1, 1)
    session = Session.of(
        captured,
        config,
        options,
        head_lr_scale=request.head_lr_scale,
        times_files=asked.kernel_times,
    )
    train, held_out = _data(request, session)
    analysis = _analysis(request, session, train, held_out)
    session.check(budget)
    bar.update("proxy", 0, None)
    scores = session.scores(train, request.proxy)
    bar.update("proxy", 1, 1)
    session.measuring = asked.measure
    if asked.measure:
        _measure(request, session, progress)
    gains = _gains(analysis, session, scores, progress)
    settings = Settings(
        generations=request.generations,
        seed=request.seed,
        finalists=request.finalists if request.fine_tune else 1,
    )
    outcome = session.search(gains, budget, settings, progress.update)
    if asked.measure:
        session.times.write(asked.times_target())
    best, reached = _chosen(analysis, outcome, request.finalists, progress)
    return _Search(session, outcome, best, reached, (_rows(train), _rows(held_out)))


def _rows(data: Arrays) -> int:
    return len(next(iter(data.values())))


def _check(request: SearchRequest) -> None:
    """Refuse what cannot be searched for before anything long runs."""
    from pockc.search.contribution import DETAILS, MEASURES
    from pockc.search.proxy import PROXIES

    if not (request.asked.memory_budget or request.asked.latency_budget):
        fix = "add --memory-budget 64MiB, --latency-budget 50ms, or both"
        raise UserError(Problem("budget", "a search needs a budget", fix=fix))
    given = {
        "--proxy": (request.proxy, PROXIES),
        "--detail": (request.detail, DETAILS),
        "--score": (request.score, MEASURES),
    }
    problems = [
        Problem(
            "option", f"there is no {option} '{value}'", fix=f"choose from: {', '.join(known)}"
        )
        for option, (value, known) in given.items()
        if value not in known
    ]
    if problems:
        raise UserError(*problems)
    for path in (request.data, request.held_out):
        if path is not None:
            check_source(path)
    for path in (request.output, _store_path(request)):
        check_file_target(path)
    _check_output(request.output)


def _check_output(path: Path) -> None:
    """Refuse to replace a configuration that was written by hand, as that of `--base`.

    Raises:
        UserError: [output] There is such a file.
    """
    from pockc.search.output import FOUND

    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(
        f"# {FOUND}"
    ):
        what = f"{path} is there, and no search has written it"
        raise UserError(Problem("output", what, fix="give another file: -o found.yaml"))


def _store_path(request: SearchRequest) -> Path:
    return request.contributions or request.output.with_suffix(".contributions.json")


def _data(request: SearchRequest, session: Session) -> tuple[Arrays, Arrays]:
    """Return what to train on and what to evaluate on: every fifth row if nothing is given.

    Raises:
        UserError: [data-file], [data-names], [data-rows], [too-few-rows].
    """
    from pockc.runtime.data import Epochs, whole_arrays

    specs = _specs(session)
    train = read_data(request.data, specs, "train")
    whole_arrays(specs, train)  # before rows are taken from arrays of different lengths
    if request.held_out is not None:
        held_out = read_data(request.held_out, specs, "eval")
        whole_arrays(specs, held_out)
    else:
        held = np.arange(_rows(train)) % 5 == 4
        held_out = {k: v[held] for k, v in train.items()}
        train = {k: v[~held] for k, v in train.items()}
    Epochs(specs, train, session.captured.rows, None, 1)
    if not _rows(held_out):
        what = f"no row of {request.held_out or request.data} is left to evaluate on"
        raise UserError(Problem("too-few-rows", what, fix="give --eval, or more rows"))
    return train, held_out


def _specs(session: Session) -> list[InputSpec]:
    from pockc.runtime.manifest import InputSpec

    captured = session.captured
    return [
        InputSpec(i.name, i.dtype.value, i.shape, i.rows)
        for i in (*captured.inputs, *captured.targets)
    ]


def _measure(request: SearchRequest, session: Session, progress: _Progress) -> None:
    """Measure the kernels of the least and of the most that can be trained."""
    full = tuple(len(u.menu) - 1 for u in session.space.units)
    schemes = ((0,) * len(full), full)
    for done, genes in enumerate(schemes):
        progress.update("measured schemes", done, len(schemes))
        session.measure(genes)
    progress.update("measured schemes", len(schemes), len(schemes))
    session.times.write(request.asked.times_target())


def _analysis(
    request: SearchRequest, session: Session, train: Arrays, held_out: Arrays
) -> Analysis | None:
    """Return the fine-tunes, with what is known of them already; None by proxy alone."""
    from pockc.search.analysis import Analysis, Plan
    from pockc.search.finetune import FineTune
    from pockc.search.session import digest_of
    from pockc.search.store import Store

    if not request.fine_tune:
        return None
    asked = request.asked
    settings: dict[str, Any] = {
        "model": asked.model,
        "batch": asked.batch,
        "data": digest_of(train),
        "held_out": digest_of(held_out),
        "epochs": request.epochs,
        "repeats": request.repeats,
        "optimizer": session.base.optimizer.spec,
        "head_lr_scale": request.head_lr_scale,
        "seed": request.seed,
    }
    how = FineTune(
        asked.model,
        asked.batch,
        session.base,
        session.options,
        train,
        held_out,
        request.epochs,
        request.repeats,
        request.seed,
    )
    plan = Plan(request.detail, request.score, request.most, request.processes)
    return Analysis(session, how, Store.open(_store_path(request), settings), plan)


def _gains(
    analysis: Analysis | None, session: Session, scores: Scores, progress: _Progress
) -> Contributions:
    from pockc.search.analysis import by_proxy

    if analysis is None:
        return by_proxy(session, scores)
    return analysis.contributions(
        scores, lambda done, total, note: progress.update("fine-tunes", done, total, note)
    )


def _chosen(
    analysis: Analysis | None, outcome: Outcome, finalists: int, progress: _Progress
) -> tuple[Found, dict[tuple[int, ...], float]]:
    """Return the best scheme, and what the schemes reached that were fine-tuned as a whole."""
    known = {f.genes: f for f in (*outcome.finalists, *outcome.by_hand)}
    if analysis is None or len(known) == 1 or finalists == 1:
        return outcome.best, {}
    reached = analysis.best_of(
        list(known), lambda done, total, note: progress.update("finalists", done, total, note)
    )
    return known[next(iter(reached))], reached


def _write(request: SearchRequest, found: _Search) -> None:
    from pockc.search.output import FOUND, config_text
    from pockc.search.pareto import write_csv, write_png

    session, outcome, best = found.session, found.outcome, found.best
    cost = best.cost
    made = session.space.config(session.base, best.genes)
    comments = [
        f"{FOUND}: {size(cost.memory_bytes)} planned, "
        f"{milliseconds(cost.step_ms)} a step (estimated)",
        f"contributions {best.contribution:.4f}; greedy {outcome.greedy.contribution:.4f}",
    ]
    if found.reached:
        comments.append(
            f"{request.score} {abs(found.reached[best.genes]):.4f} on held-out rows"
        )
    request.output.write_text(config_text(made, comments), encoding="utf-8")
    csv_path = request.output.with_suffix(".pareto.csv")
    png_path = request.output.with_suffix(".pareto.png")
    write_csv(outcome.front, best, session.space, csv_path)
    write_png(outcome.front, best, request.asked.budget().memory_bytes, png_path)
    _show(request, found)
    _show_finalists(request, session, outcome, found.reached)
    say(f"wrote {request.output}, {csv_path}, {png_path}")


def _show(request: SearchRequest, found: _Search) -> None:
    session, outcome, best = found.session, found.outcome, found.best
    made = table("Found", "block", "trained")
    for part in session.space.describe(best.genes).split("; "):
        block, _, trained = part.partition(" ")
        made.add_row(block, trained or "all")
    show(made)
    cost = best.cost
    say(
        f"memory       {size(cost.memory_bytes)} planned (state {size(cost.state_bytes)}, "
        f"arena {size(cost.arena_bytes)}, runtime {size(cost.runtime_bytes)})"
    )
    say(f"time         {milliseconds(cost.step_ms)} a step, estimated")
    unit = _GAINS[request.score] if request.fine_tune else f"by the proxy {request.proxy}"
    say(
        f"contribution {best.contribution:.4f} ({unit}, parts added up); "
        f"greedy {outcome.greedy.contribution:.4f}"
    )
    say(f"looked at    {outcome.seen} schemes, {session.estimator.plans} planned exactly")
    trained_on, held_out = found.rows
    split = "" if request.held_out else ", every fifth row held out"
    say(f"data         {trained_on} rows to train, {held_out} to evaluate{split}")


def _show_finalists(
    request: SearchRequest,
    session: Session,
    outcome: Outcome,
    reached: Mapping[tuple[int, ...], float],
) -> None:
    if not reached:
        return
    by_hand = {f.genes for f in outcome.by_hand}
    known = {f.genes: f for f in (*outcome.finalists, *outcome.by_hand)}
    made = table("Fine-tuned as a whole", request.score, "memory", "", "scheme", right=(0, 1))
    for genes, value in reached.items():
        who = "by hand" if genes in by_hand else ""
        memory = size(known[genes].cost.memory_bytes)
        made.add_row(f"{abs(value):.4f}", memory, who, session.space.describe(genes))
    show(made)
