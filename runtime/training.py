"""The training loop: epochs, learning-rate schedule, evaluation, checkpoints.

The order of the rows and the learning rate are functions of the step number alone; with the
state and the step count of a checkpoint a run goes on exactly where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pockc.errors import Problem, UserError
from pockc.runtime.data import Batches, Epochs

if TYPE_CHECKING:
    from pockc.runtime.artifact import Artifact

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What is known after a step."""

    step: int
    total_steps: int | None
    epoch: int
    loss: float
    lr: float
    step_ms: float


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What is known after an epoch; epochs count from 1.

    Attributes:
        loss: Mean over the steps of the epoch.
        step_ms: Median time of a step.
        evaluation: What `evaluate` returned, None without evaluation data.
    """

    epoch: int
    step: int
    loss: float
    step_ms: float
    seconds: float
    evaluation: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class History:
    """A finished run."""

    losses: list[float]
    epochs: list[EpochReport]
    seconds: float

    @property
    def evaluation(self) -> dict[str, float] | None:
        """The last evaluation, None if there was none."""
        return self.epochs[-1].evaluation if self.epochs else None


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: How often every row is seen.
        lr: Peak learning rate; None is the one that the artifact was compiled with.
        schedule: One of `SCHEDULES`.
        warmup_steps: Steps over which the rate rises to its peak, before the schedule.
        final_lr: Share of the peak at which linear and cosine end.
        shuffle: Shuffle arrays in every epoch.
        seed: Of the shuffling.
        evaluate: Evaluated after each epoch.
        checkpoint: A safetensors file, written after each epoch and on an interrupt.
        checkpoint_steps: Write it every so many steps as well.
        resume: Take the artifact's step count for the steps of this run that are done already.
        on_step: Called after every step.
        on_epoch: Called after every epoch.
    """

    epochs: int = 1
    lr: float | None = None
    schedule: str = "constant"
    warmup_steps: int = 0
    final_lr: float = 0.0
    shuffle: bool = True
    seed: int = 0
    evaluate: Batches | None = None
    checkpoint: str | Path | None = None
    checkpoint_steps: int | None = None
    resume: bool = False
    on_step: Callable[[StepReport], None] | None = None
    on_epoch: Callable[[EpochReport], None] | None = None


def learning_rate(
    step: int, total_steps: int | None, peak: float, options: TrainOptions
) -> float:
    """Return the rate of a step, counted from 0."""
    if step < options.warmup_steps:
        return peak * (step + 1) / options.warmup_steps
    if options.schedule == "constant" or total_steps is None:
        return peak
    span = max(total_steps - options.warmup_steps, 1)
    done = min((step - options.warmup_steps) / span, 1.0)
    share = (
        1.0 - done if options.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    )
    return peak * (options.final_lr + (1.0 - options.final_lr) * share)


def train(artifact: Artifact, data: Batches, options: TrainOptions) -> History:
    """Train an artifact.

    Raises:
        UserError: [nonfinite-loss] The loss became NaN or infinite; the last checkpoint is as
            it was, and the artifact is back at it. [train-option] A setting that is no good.
    """
    _check_options(options)
    seed = options.seed if options.shuffle else None
    epochs = Epochs(artifact.train_inputs, data, artifact.batch_rows, seed, options.epochs)
    if epochs.steps is None and options.schedule != "constant":
        what = f"schedule '{options.schedule}' needs to know how many batches there are"
        fix = "give arrays or a list of batches, or use schedule 'constant'"
        raise UserError(Problem("train-option", what, fix=fix))
    return _Run(artifact, epochs, options).run()


def _check_options(options: TrainOptions) -> None:
    problems = []
    if options.schedule not in SCHEDULES:
        what = f"there is no schedule '{options.schedule}'"
        problems.append(
            Problem("train-option", what, fix=f"choose from: {', '.join(SCHEDULES)}")
        )
    for name, least in (("epochs", 1), ("warmup_steps", 0), ("checkpoint_steps", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            what = f"{name} is {value}"
            problems.append(Problem("train-option", what, fix=f"give at least {least}"))
    if options.lr is not None and not (math.isfinite(options.lr) and options.lr >= 0):
        what = f"lr is {options.lr}"
        problems.append(Problem("train-option", what, fix="give a number that is not negative"))
    if problems:
        raise UserError(*problems)


@dataclass
class _Run:
    """One run: what it has seen so far."""

    artifact: Artifact
    epochs: Epochs
    options: TrainOptions
    losses: list[float] = field(default_factory=list)
    reports: list[EpochReport] = field(default_factory=list)
    saved_step: int | None = None
    done: int = 0

    @property
    def total_steps(self) -> int | None:
        return None if self.epochs.steps is None else self.epochs.steps * self.options.epochs

    def run(self) -> History:
        begin = time.perf_counter()
        try:
            self._epochs()
        except KeyboardInterrupt:
            self._save()  # the step that was running is finished
            raise
        return History(self.losses, self.reports, time.perf_counter() - begin)

    def _epochs(self) -> None:
        skip = self.artifact.step if self.options.resume else 0
        for epoch in range(self.options.epochs):
            steps = self.epochs.steps
            if steps is not None and skip >= steps:
                skip -= steps
                self.done += steps
                continue
            self.done += skip
            self._epoch(epoch, skip)
            skip = 0

    def _epoch(self, epoch: int, skip: int) -> None:
        begin, first = time.perf_counter(), len(self.losses)
        times = [self._step(epoch, batch) for batch in self.epochs.batches(epoch, skip)]
        losses = self.losses[first:]
        self._save()
        evaluation = None
        if self.options.evaluate is not None:
            evaluation = self.artifact.evaluate(self.options.evaluate)
        report = EpochReport(
            epoch=epoch + 1,
            step=self.artifact.step,
            loss=math.fsum(losses) / max(len(losses), 1),
            step_ms=sorted(times)[len(times) // 2] if times else 0.0,
            seconds=time.perf_counter() - begin,
            evaluation=evaluation,
        )
        self.reports.append(report)
        if self.options.on_epoch is not None:
            self.options.on_epoch(report)

    def _step(self, epoch: int, batch: tuple[Any, ...]) -> float:
        peak = self.options.lr
        rate = learning_rate(
            self.done,
            self.total_steps,
            self.artifact.manifest.learning_rate if peak is None else peak,
            self.options,
        )
        begin = time.perf_counter()
        try:
            loss = self.artifact.train_step(*batch, lr=rate)
        except UserError as error:
            raise self._stopped(error) from error
        step_ms = (time.perf_counter() - begin) * 1e3
        self.done += 1
        self.losses.append(loss)
        every = self.options.checkpoint_steps
        if every is not None and self.done % every == 0:
            self._save()
        if self.options.on_step is not None:
            total = self.total_steps
            report = StepReport(self.artifact.step, total, epoch + 1, loss, rate, step_ms)
            self.options.on_step(report)
        return step_ms

    def _save(self) -> None:
        if self.options.checkpoint is None or self.saved_step == self.artifact.step:
            return
        try:
            self.artifact.save_checkpoint(self.options.checkpoint)
        except UserError as error:
            raise self._stopped(error) from error
        self.saved_step = self.artifact.step

    def _stopped(self, error: UserError) -> UserError:
        """Go back to the last good state, if one was kept, and say so."""
        problem = error.problems[0]
        if problem.slug not in ("nonfinite-loss", "nonfinite-state"):
            return error
        fix = "lower the learning rate or clip gradients, and check the data for NaN"
        if not self.artifact.diverged and problem.slug == "nonfinite-loss":
            fix += f"; the step was not taken, the artifact is at step {self.artifact.step}"
        elif self.options.checkpoint is None or self.saved_step is None:
            fix += "; then open the artifact again: no checkpoint was kept (checkpoint=...)"
        else:
            self.artifact.load_state(self.options.checkpoint)
            fix += (
                f"; the artifact is back at step {self.saved_step}, the last good one, "
                f"from {self.options.checkpoint}"
            )
        return UserError(Problem(problem.slug, problem.what, problem.at, problem.source, fix))
