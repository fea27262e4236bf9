"""The `train` command on another machine: the same lines as here, and the results come home."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pockc.cli.console import Bar, progress_bar, say, warn
from pockc.cli.curves import Recorder
from pockc.cli.deploying import (
    There,
    command_there,
    failed_there,
    send_artifact,
    shown_on,
)
from pockc.cli.places import check_artifact_target, check_file_target, check_source
from pockc.cli.text import figures, milliseconds, size
from pockc.cli.training import TrainRequest
from pockc.remote import Connection, bring_back, connect, send_files

INTERRUPTED = 130
_LOG = ".train.jsonl"
_CHECKPOINT = ".checkpoint.safetensors"


@dataclass(frozen=True)
class Results:
    """Where the results of a run go, here.

    Attributes:
        save: The trained artifact.
        checkpoint: The last checkpoint.
        log: A JSON line for every event.
    """

    save: Path
    checkpoint: Path
    log: Path

    @classmethod
    def of(cls, request: TrainRequest) -> Results:
        """Return the places that were asked for, else files beside the artifact."""
        beside = request.artifact.with_suffix
        checkpoint = request.options.checkpoint or beside(_CHECKPOINT)
        return cls(request.save, Path(checkpoint), beside(_LOG))


def train_there(request: TrainRequest, there: There) -> int:
    """Train on another machine; return 0, or 130 if it was interrupted.

    Raises:
        UserError: [remote-run] It failed there; or what sending and fetching raise.
    """
    results = Results.of(request)
    check_artifact_target(results.save)
    check_file_target(results.log)
    results.checkpoint.parent.mkdir(exist_ok=True)
    files = [f for f in (request.data, request.evaluation) if f is not None]
    for file in files:
        check_source(file)
    with connect(there.place.destination, there.ssh) as connection:
        send_artifact(request.artifact, connection, there.place)
        with progress_bar() as bar:
            paths = send_files(connection, there.place, files, shown_on(bar))
        checkpoint = there.place.path(request.artifact.stem + _CHECKPOINT)
        if request.options.resume:
            _offer(connection, results.checkpoint, checkpoint)
        words = _words(request, paths, checkpoint)
        command = command_there(there.place, request.artifact, "train", *words)
        name = f"{there.place.destination}:{request.artifact.name}"
        with (
            request.curves.recorder(f"{name}: training") as curves,
            progress_bar() as bar,
            results.log.open("w", encoding="utf-8") as log,
        ):
            shown = _Shown(bar, log, name, curves)
            status = connection.follow(command, shown.line)
        if status in (0, INTERRUPTED):
            _bring_home(connection, request, there, checkpoint, results, status)
            return status
    raise failed_there(connection, "train", status)


def _offer(connection: Connection, mine: Path, checkpoint: str) -> None:
    """Send the checkpoint to go on from, unless the machine has one, which is no older."""
    there = connection.run(f"test -f {shlex.quote(checkpoint)} && echo yes; true")
    if mine.exists() and not there.strip():
        connection.send(mine, checkpoint, lambda _: None)


def _words(request: TrainRequest, paths: Mapping[Path, str], checkpoint: str) -> list[str]:
    options = request.options
    given = {
        "--data": paths[request.data],
        "--eval": None if request.evaluation is None else paths[request.evaluation],
        "--epochs": options.epochs,
        "--lr": options.lr,
        "--schedule": options.schedule,
        "--warmup": options.warmup_steps,
        "--seed": request.seed,
        "--threads": request.threads,
        "--checkpoint": checkpoint,
    }
    words = [w for key, v in given.items() if v is not None for w in (key, str(v))]
    return [*words, *(["--resume"] if options.resume else []), "--log-json"]


def _bring_home(
    connection: Connection,
    request: TrainRequest,
    there: There,
    checkpoint: str,
    results: Results,
    status: int,
) -> None:
    connection.fetch(checkpoint, results.checkpoint)
    say(f"log      {results.log}")
    say(f"fetched  {results.checkpoint}")
    if status == INTERRUPTED:
        say("stopped  before the end; --resume goes on from the checkpoint")
        return
    path = there.place.artifact(request.artifact)
    bring_back(connection, path, request.artifact, results.save)
    say(f"saved    {results.save}")


class _Shown:
    """Shows the events of a run as lines and on a bar, and keeps them."""

    def __init__(self, bar: Bar, log: TextIO, where: str, curves: Recorder) -> None:
        self._bar = bar
        self._log = log
        self._where = where
        self._curves = curves
        self._mean: float | None = None
        self._shows: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "start": self._start,
            "step": self._step,
            "epoch": self._epoch,
            "evaluation": self._evaluation,
            "resumed": self._resumed,
            "early_stop": self._early_stop,
            "done": self._done,
        }

    def line(self, text: str) -> None:
        """Take a line of the run's output."""
        try:
            event = json.loads(text)
        except ValueError:
            warn(text)  # not of the run itself, as from the shell there
            return
        self._log.write(text + "\n")
        show = self._shows.get(event.get("event"))
        if show is not None:
            show(event)

    def _start(self, event: Mapping[str, Any]) -> None:
        say(
            f"training {self._where}: {event['rows']} samples, batches of "
            f"{event['batch_rows']}, {event['threads']} threads, "
            f"{size(event['planned_bytes'])} planned"
        )

    def _step(self, event: Mapping[str, Any]) -> None:
        loss = float(event["loss"])
        self._curves.step(event["step"], loss, event.get("lr"), event["step_ms"])
        self._mean = loss if self._mean is None else self._mean + 0.05 * (loss - self._mean)
        note = f"loss {self._mean:.4f}  {milliseconds(event['step_ms'])}/step"
        self._bar.update("training", event["done"], event["total"], note)

    def _epoch(self, event: Mapping[str, Any]) -> None:
        self._curves.epoch()
        step = milliseconds(event["step_ms"])
        say(f"epoch {event['epoch']:<2} loss {event['loss']:.4f}, {step}/step")

    def _evaluation(self, event: Mapping[str, Any]) -> None:
        known = ("loss", "accuracy", "samples")
        told = {k: event[k] for k in known if event.get(k) is not None}
        self._curves.evaluated(told)
        say(f"eval     {figures(told)}")

    @staticmethod
    def _resumed(event: Mapping[str, Any]) -> None:
        say(f"resumed  after {event['done']} of {event['total']} steps")

    @staticmethod
    def _early_stop(event: Mapping[str, Any]) -> None:
        say(f"stopped  early: no evaluation better than loss {event.get('loss', 0):.4f}")

    @staticmethod
    def _done(event: Mapping[str, Any]) -> None:
        say(f"memory   {size(event['peak_bytes'])} at most, of the whole process there")
