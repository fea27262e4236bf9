"""What `train` records besides its lines: TensorBoard's event files and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pockc.cli.console import say
from pockc.cli.places import check_file_target
from pockc.errors import Problem, UserError
from pockc.report.curves import Curves, curves_figure
from pockc.report.style import save


@dataclass(frozen=True)
class CurveFiles:
    """Where curves go.

    Attributes:
        tensorboard: A folder for event files; None for none.
        picture: A PNG or SVG file; None for none.
    """

    tensorboard: Path | None = None
    picture: Path | None = None

    @contextmanager
    def recorder(self, title: str) -> Iterator[Recorder]:
        """Give a recorder; the picture is drawn at the end, of an interrupted run as well.

        Raises:
            UserError: A file cannot be written, or [no-tensorboard] a package is missing.
        """
        if self.picture is not None:
            check_picture(self.picture)
        writer = None if self.tensorboard is None else _writer(self.tensorboard)
        recorder = Recorder(Curves(), writer)
        try:
            yield recorder
        finally:
            if writer is not None:
                writer.close()
                say(f"events   {self.tensorboard}; tensorboard --logdir {self.tensorboard}")
            if self.picture is not None and recorder.curves.steps:
                save(curves_figure(recorder.curves, title), self.picture)
                say(f"curves   {self.picture}")


def check_picture(path: Path) -> None:
    """Check before anything long runs that a picture can be written.

    Raises:
        UserError: [no-folder], [picture-format], or a package is missing.
    """
    from pockc.report.style import check_format, styled

    check_file_target(path)
    check_format(path)
    styled()


def _writer(folder: Path) -> Any:  # noqa: ANN401  tensorboardX has no types
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        what = "event files need a package that is missing: tensorboardX"
        fix = "pip install 'pockc[tensorboard]'"
        raise UserError(Problem("no-tensorboard", what, fix=fix)) from error
    try:
        return SummaryWriter(str(folder), flush_secs=10)
    except OSError as error:
        what = f"event files cannot be written to {folder}: {error}"
        raise UserError(Problem("no-folder", what, fix="give another folder")) from error


class Recorder:
    """Notes a run, and hands it to TensorBoard as it goes."""

    def __init__(self, curves: Curves, writer: Any = None) -> None:  # noqa: ANN401
        """Record into `curves`, and with a writer of event files to it."""
        self.curves = curves
        self._writer = writer
        self._last = 0

    def step(self, number: int, loss: float, rate: float | None, step_ms: float) -> None:
        """Note a step."""
        self._last = number
        self.curves.step(number, loss, float("nan") if rate is None else rate)
        told = {"train/loss": loss, "train/learning_rate": rate, "train/step_ms": step_ms}
        self._tell(told, number)

    def epoch(self) -> None:
        """Note that an epoch is over."""
        self.curves.epochs.append(self._last)

    def evaluated(self, figures: dict[str, float], number: int | None = None) -> None:
        """Note the results of an evaluation, after the last step or the given one."""
        at = self._last if number is None else number
        self.curves.evaluated(at, figures)
        told = {f"eval/{k}": v for k, v in figures.items() if k != "samples"}
        self._tell(told, at)

    def _tell(self, told: dict[str, Any], number: int) -> None:
        if self._writer is None:
            return
        for name, value in told.items():
            if value is not None:
                self._writer.add_scalar(name, value, number)
