"""The `tune` command's run."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pockc.cli.console import progress_bar, say, show, table
from pockc.cli.places import check_file_target
from pockc.errors import Problem, UserError
from pockc.runtime.manifest import MANIFEST_FILE
from pockc.runtime.opening import check_machine, read_graph_text, read_manifest
from pockc.tuning.database import Database, Key, Record, read_database, write_database

if TYPE_CHECKING:
    from pockc.tuning.search import Job, Setting

_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class TuneRequest:
    """What `pockc tune` was asked to do.

    Attributes:
        model: An artifact, or how the user names the model.
        output: The database.
        sparse_update: The configuration file of a model.
        batch: Rows of a step of a model.
        budget: When to stop.
        target: The machine.
        threads: Threads to divide work for; None for the artifact's.
    """

    model: str
    output: Path
    sparse_update: Path | None
    batch: int | None
    budget: str
    target: str
    threads: int | None


@dataclass
class _Run:
    """A run of the search over many kernels; every result is written as it comes."""

    setting: Setting
    threads: int
    path: Path
    database: Database
    ends: float

    def key(self, job: Job) -> Key:
        return Key(job.kernel.symbol, self.setting.target.key, self.threads)

    def is_known(self, job: Job) -> bool:
        """Whether it was measured, with the generator as it is today."""
        record = self.database.records.get(self.key(job))
        return record is not None and record.generator == self.setting.backend.version

    def over(self, jobs: Sequence[Job], progress: Callable[..., None]) -> list[Job]:
        """Tune kernels until the time is over; return those that were."""
        from pockc.tuning.search import tune_kernel

        done: list[Job] = []
        for job in jobs:
            left = self.ends - time.monotonic()
            if left <= 0:
                break
            progress("tune", len(done), len(jobs), f"{left:.0f} s left, {job.kernel.symbol}")
            found = tune_kernel(job.kernel, self.setting)
            self.database.records[self.key(job)] = Record(
                found.schedule,
                self.setting.backend.version,
                found.default_us,
                found.tuned_us,
            )
            write_database(self.path, self.database)
            done.append(job)
        return done


def run_tuning(request: TuneRequest) -> None:
    """Measure kernels until the budget is spent, and say what was gained."""
    seconds = budget_seconds(request.budget)
    check_file_target(request.output)
    database = read_database(request.output) if request.output.exists() else Database()
    with tempfile.TemporaryDirectory(prefix="pockc-tune-") as folder:
        artifact = _artifact(request, Path(folder))
        jobs, run = _prepare(request, artifact, database, seconds)
    waiting = [j for j in jobs if not run.is_known(j)]
    done: list[Job] = []
    try:
        with progress_bar() as bar:
            done = run.over(waiting, bar.update)
    finally:
        _report(run, jobs, len(jobs) - len(waiting))
    if len(done) < len(waiting):
        left = len(waiting) - len(done)
        say(f"{left} kernels are left: run it again, or with a larger --budget")


def budget_seconds(text: str) -> float:
    """Return a time such as 90s, 10m or 2h in seconds.

    Raises:
        UserError: [bad-budget] It is no such time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        what = f"'{text}' is no budget"
        raise UserError(Problem("bad-budget", what, fix="give it as 90s, 10m or 2h"))
    return float(found[1]) * _UNITS[found[2] or "s"]


def _artifact(request: TuneRequest, folder: Path) -> Path:
    """Return the artifact to tune: the given one, or what the model is compiled to."""
    given = Path(request.model)
    if (given / MANIFEST_FILE).exists() or given.suffix == ".pock":
        return given
    from pockc.cli.compiling import CompileRequest, compile_artifact

    return compile_artifact(
        CompileRequest(
            model=request.model,
            output=folder / "model.pock",
            sparse_update=request.sparse_update,
            overrides={},
            batch=request.batch,
            target=request.target,
            backend="tvm",
            opset=None,
            threads=request.threads,
            static=False,
            dump_passes=None,
        )
    )


def _prepare(
    request: TuneRequest, artifact: Path, database: Database, seconds: float
) -> tuple[list[Job], _Run]:
    """Return the kernels of an artifact, and the run over them."""
    from pockc.backends import tvm
    from pockc.backends.tvm import targets
    from pockc.ir.texts import graph_texts, parse_outline
    from pockc.tuning.search import Setting, jobs_of

    manifest = read_manifest(artifact)
    # Its kernels are measured by running them here.
    check_machine(artifact, manifest.machine)
    target = targets.get(manifest.machine.target)
    threads = request.threads or manifest.report.get("threads") or target.cores
    setting = Setting(tvm.BACKEND, target, manifest.memory["arena_bytes"])
    graphs = [parse_outline(t) for t in graph_texts(read_graph_text(artifact)).values()]
    jobs = jobs_of(graphs, setting.backend, target.name, threads)
    ends = time.monotonic() + seconds
    return jobs, _Run(setting, threads, request.output, database, ends)


def _report(run: _Run, jobs: Sequence[Job], before: int) -> None:
    """Show the kernels that gained, and what a step gains by all of them."""
    records = [(job, run.database.records.get(run.key(job))) for job in jobs]
    known = [(job, record) for job, record in records if record is not None]
    won = [(job, record) for job, record in known if record.schedule.choices]
    made = table(
        "Faster schedules",
        "kernel",
        "calls",
        "default us",
        "tuned us",
        "schedule",
        right=(1, 2, 3),
    )
    for job, r in won:
        times = (f"{r.default_us:.1f}", f"{r.tuned_us:.1f}")
        made.add_row(job.kernel.symbol, str(job.calls), *times, str(r.schedule))
    if won:
        show(made)
    usual = sum(job.calls * r.default_us for job, r in known)
    tuned = sum(job.calls * r.tuned_us for job, r in known)
    earlier = f", {before} of them before" if before else ""
    say(
        f"{len(known)} of {len(jobs)} kernels are measured{earlier}; {len(won)} are faster "
        f"with another schedule: {usual / 1000:.2f} ms become {tuned / 1000:.2f} ms"
    )
    say(f"wrote {run.path}; use it with: pockc compile MODEL --tuning-db {run.path}")
