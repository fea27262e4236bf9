"""Runs the peers of a case: all are started, then take their turns, round after round."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pockc.errors import PockcError
from tests.bench import layers
from tests.bench.arithmetic import multiply_adds
from tests.bench.cases import Case
from tests.bench.compiling import compile_case
from tests.bench.machine import measure_peak
from tests.bench.peers import ROOT, SCRATCH, Peer, Unavailable, interpreter, last_words
from tests.bench.process import Job, Process, environment, worker_command
from tests.bench.results import CaseResult, Measured
from tests.bench.values import WEIGHTS_FILE, write_case
from tests.bench.workers import onnx_model

SETTLE_S = 0.2
"""Pause between turns: the threads of whoever had the last one spin for a while."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        threads: That compute.
        rounds: Turns of each peer.
        seconds: A turn ends when it has taken so long,
        least: but not before so many steps,
        most: and at the latest after so many.
        interpreters: Of environments that exist already.
        report: Told what goes on.
    """

    threads: int = 2
    rounds: int = 5
    seconds: float = 1.5
    least: int = 2
    most: int = 100
    interpreters: Mapping[str, str] = field(default_factory=dict)
    report: Callable[[str], None] = lambda _: None


def measure_case(case: Case, peers: Sequence[Peer], settings: Settings) -> CaseResult:
    """Measure a case with all peers; one that cannot be measured says why in its result."""
    folder = SCRATCH / "cases" / case.key
    shutil.rmtree(folder, ignore_errors=True)
    write_case(case, folder)
    measured = {p.name: Measured(p.name) for p in peers}
    running: dict[str, Process] = {}
    try:
        for peer in peers:
            settings.report(f"start {peer.title}")
            try:
                running[peer.name] = _start(case, peer, folder, settings, measured[peer.name])
            except (Unavailable, PockcError) as why:
                measured[peer.name].failed = str(why).splitlines()[0]
        peak = measure_peak(settings.threads)
        _take_turns(running, measured, settings)
        peak = peak.or_better(measure_peak(settings.threads))
        for name, process in running.items():
            measured[name].runtime_bytes = process.runtime_bytes()
    finally:
        for process in running.values():
            process.stop()
    shutil.rmtree(folder)
    gflop = 2e-9 * multiply_adds(case)
    return CaseResult(case.key, case.title, case.mode, gflop, peak, list(measured.values()))


def _start(
    case: Case, peer: Peer, folder: Path, settings: Settings, measured: Measured
) -> Process:
    """Prepare what a peer needs beforehand, and start it."""
    if not peer.any_net and not layers.supported(case.spec.net):
        raise Unavailable(f"{case.spec.net} is not defined for it")
    python = interpreter(peer.environment, settings.interpreters, settings.report)
    job = Job(python, folder, settings.threads)
    artifact, options = folder / WEIGHTS_FILE, {}
    if peer.module == "pockc_runtime":
        backend = str(peer.options["backend"])
        artifact = folder / f"{backend}.pock"
        options["artifact"] = str(artifact)
        measured.compile_s = compile_case(case, artifact, settings.threads, backend=backend)
    elif peer.module == "onnx_runtime":
        artifact = folder / onnx_model.FOLDER
        measured.compile_s = _export_onnx(job)
    process = Process(peer, job, **options)
    measured.version = process.ready["version"]
    measured.first_loss = process.ready["loss"]
    measured.first_step_s = process.ready["first_step_s"]
    measured.planned_bytes = process.ready.get("planned_bytes", 0)
    measured.artifact_bytes = _size(artifact)
    return process


def _export_onnx(job: Job) -> float:
    began = time.perf_counter()
    command = worker_command(
        "onnx_model", job.python, {"folder": str(job.folder), "threads": job.threads}
    )
    ended = subprocess.run(
        command,
        env=environment(job.threads),
        cwd=job.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise Unavailable(f"the export failed: {last_words(ended.stderr)}")
    return time.perf_counter() - began


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _take_turns(
    running: dict[str, Process], measured: Mapping[str, Measured], settings: Settings
) -> None:
    """Let everyone who runs take a turn in every round; who fails is out."""
    for at in range(settings.rounds):
        for name, process in list(running.items()):
            settings.report(f"round {at + 1} of {settings.rounds}: {name}")
            time.sleep(SETTLE_S)
            result = measured[name]
            try:
                answer = process.turn(settings.seconds, settings.least, settings.most)
            except Unavailable as why:
                result.failed = str(why)
                running.pop(name).stop()
                continue
            result.turns_ms.append(answer["ms"])
            result.peak_bytes = max(result.peak_bytes, answer["peak_bytes"])
            seen = (result.peak_with_start_bytes, answer["peak_before_bytes"])
            result.peak_with_start_bytes = max(*seen, result.peak_bytes)


def revision() -> str:
    """Return the commit that is checked out, with a mark if files differ from it."""
    command = ("git", "describe", "--always", "--dirty")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()
