"""The `train` command's run: progress, a line per epoch, and where the weights go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pockc.cli.console import Bar, progress_bar, say
from pockc.cli.curves import CurveFiles, Recorder
from pockc.cli.data import read_data
from pockc.cli.places import check_artifact_target, check_file_target
from pockc.cli.text import figures, milliseconds, size
from pockc.process import forget_peak, peak_bytes, resident_bytes
from pockc.runtime import (
    Artifact,
    EpochReport,
    History,
    StepReport,
    TrainOptions,
    load,
    read_manifest,
)


@dataclass(frozen=True)
class TrainRequest:
    """What `pockc train` was asked to do.

    Attributes:
        artifact: The folder.
        data: What to train on.
        evaluation: What to evaluate on after each epoch.
        save: Where the trained artifact goes; the one it came from is replaced if it is that.
        threads: Threads that run kernels.
        providers: Execution providers of ONNX Runtime; None is the processor.
        seed: The artifact's seed, as for dropout; None leaves it.
        options: How to train.
        curves: Where curves go.
    """

    artifact: Path
    data: Path
    evaluation: Path | None
    save: Path
    threads: int | None
    providers: Sequence[str] | None
    seed: int | None
    options: TrainOptions
    curves: CurveFiles = field(default_factory=CurveFiles)


def checkpoint_file(given: Path) -> Path:
    """Return the checkpoint that is meant: the file itself, or the one in a folder.

    Raises:
        UserError: [no-folder] There is no folder for it.
    """
    check_file_target(given)
    return given if given.suffix == ".safetensors" else given / "checkpoint.safetensors"


def run_training(request: TrainRequest) -> None:
    """Train, report, and save the artifact."""
    manifest = read_manifest(request.artifact)
    check_artifact_target(request.save)
    data = read_data(request.data, manifest.entries["train_step"].inputs, "train")
    held_out = None
    if request.evaluation is not None:
        specs = manifest.entries["evaluate"].inputs
        held_out = read_data(request.evaluation, specs, "eval")
    # Outermost: what is loaded for pictures is not measured as memory of the training.
    with request.curves.recorder(f"{request.artifact.resolve().stem}: training") as curves:
        forget_peak()
        before = resident_bytes()
        with load(request.artifact, request.threads, providers=request.providers) as artifact:
            if request.seed is not None:
                artifact.seed = request.seed
            _resume(artifact, request.options)
            _introduce(artifact, data)
            options = replace(request.options, evaluate=held_out)
            history = _train(artifact, data, options, curves)
            _conclude(artifact, history.seconds, len(history.losses), before)
            artifact.save(request.save)
        say(f"saved    {request.save}")


def _resume(artifact: Artifact, options: TrainOptions) -> None:
    if options.resume and options.checkpoint is not None and Path(options.checkpoint).exists():
        artifact.load_state(options.checkpoint)
        say(f"resumed  after {artifact.step} steps")


def _introduce(artifact: Artifact, data: dict[str, np.ndarray]) -> None:
    specs = artifact.train_inputs
    rows = next((len(data[s.name]) for s in specs if s.batched), 0)
    say(
        f"training {artifact.path}: {rows} samples, batches of {artifact.batch_rows}, "
        f"{artifact.threads} threads"
    )


def _train(
    artifact: Artifact,
    data: dict[str, np.ndarray],
    options: TrainOptions,
    curves: Recorder,
) -> History:
    if options.evaluate is not None:
        before = artifact.evaluate(options.evaluate)
        curves.evaluated(before, artifact.step)
        say(f"before   {figures(before)}")
    with progress_bar() as bar:
        shown = _Shown(bar, curves)
        chosen = replace(options, on_step=shown.step, on_epoch=shown.epoch)
        return artifact.train(data, chosen)


class _Shown:
    """Shows steps on the bar and epochs as lines, and records both."""

    def __init__(self, bar: Bar, curves: Recorder) -> None:
        self._bar = bar
        self._curves = curves
        self._first: int | None = None
        self._mean = 0.0
        self._drawn = 0.0

    def step(self, report: StepReport) -> None:
        self._curves.step(report.step, report.loss, report.lr, report.step_ms)
        if self._first is None:
            self._first, self._mean = report.step - 1, report.loss
        self._mean += 0.05 * (report.loss - self._mean)
        done = report.step - self._first
        now = time.monotonic()
        if now - self._drawn < 0.1 and done != report.total_steps:
            return
        self._drawn = now
        note = f"loss {self._mean:.4f}  {milliseconds(report.step_ms)}/step"
        self._bar.update("training", done, report.total_steps, note)

    def epoch(self, report: EpochReport) -> None:
        self._curves.epoch()
        if report.evaluation is not None:
            self._curves.evaluated(report.evaluation)
        line = (
            f"epoch {report.epoch:<2} loss {report.loss:.4f}, "
            f"{milliseconds(report.step_ms)}/step, {report.seconds:.1f} s"
        )
        if report.evaluation is not None:
            line += f"; eval: {figures(report.evaluation)}"
        say(line)


def _conclude(artifact: Artifact, seconds: float, steps: int, before: int | None) -> None:
    memory = artifact.memory
    planned = (
        f"{size(memory.total_bytes)} planned (state {size(memory.state_bytes)}, arena "
        f"{size(memory.arena_bytes)}, runtime {size(memory.runtime_bytes)}), "
        f"{size(memory.frozen_bytes)} frozen, mapped from the file"
    )
    peak = peak_bytes()
    measured = ""
    if peak is not None and before is not None:
        measured = f", {size(max(0, peak - before))} measured in the process"
    say(f"done     {steps} steps in {seconds:.1f} s")
    say(f"memory   {planned}{measured}")
