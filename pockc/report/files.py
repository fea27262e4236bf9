"""The pictures of a report as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.report.graphs import CAPTURED, read_stage, stage_names
from pockc.report.memory import arena_figure, memory_figure
from pockc.report.net import columns, net_svg
from pockc.report.report import Reported
from pockc.report.style import check_format, save
from pockc.report.time_pictures import modules_figure, roofline_figure
from pockc.runtime.files import replaced_file


@dataclass(frozen=True)
class Pictures:
    """Where pictures go, and as what.

    Attributes:
        folder: Made if it is not there.
        kind: png or svg.
    """

    folder: Path
    kind: str = "png"

    def __post_init__(self) -> None:
        """Check that they can be written, before anything is measured.

        Raises:
            UserError: [picture-format]; [no-folder] the folder cannot be made.
        """
        check_format(Path(f"picture.{self.kind}"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the folder {self.folder} cannot be made: {error.strerror}"
            raise UserError(Problem("no-folder", what, fix="give another one")) from error

    def write(self, shown: Sequence[Reported]) -> list[Path]:
        """Draw all that is known of artifacts; return the files."""
        written: list[Path] = []
        planned = [r.subject for r in shown if r.subject.memory is not None]
        if planned:
            save(memory_figure(planned), self._path(written, "memory"))
        for r in shown:
            if r.subject.memory is not None:
                save(arena_figure(r.subject)[0], self._path(written, f"{r.name}.arena"))
            if r.profile is not None:
                save(
                    modules_figure(r.name, r.profile), self._path(written, f"{r.name}.modules")
                )
                made, _ = roofline_figure(r.name, r.profile)
                save(made, self._path(written, f"{r.name}.roofline"))
            if CAPTURED in stage_names(r.subject):
                stage = read_stage(r.subject, CAPTURED)
                title = f"{r.name}: what a training step computes"
                text = net_svg(title, columns(stage, r.subject.sizes()))
                written.append(self.folder / f"{r.name}.net.svg")
                with replaced_file(written[-1]) as file:
                    file.write(text.encode())
        return written

    def _path(self, written: list[Path], name: str) -> Path:
        written.append(self.folder / f"{name}.{self.kind}")
        return written[-1]
