"""The `profile` command: where the time and the memory of a training step go."""

from __future__ import annotations

import json as json_text
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pockc.cli.console import progress_bar, say, show, warn
from pockc.cli.deploying import There, command_there, failed_there, send_artifact
from pockc.cli.options import ArtifactArg, OnOption, PortOption, SshOption, ThreadsOption
from pockc.cli.places import check_file_target
from pockc.errors import Problem, UserError
from pockc.runtime.manifest import ONNX

if TYPE_CHECKING:
    from pockc.profile import Profile, Recording

SUFFIX = ".recording.json"


def profile(  # noqa: PLR0913, PLR0917  one parameter per option
    artifact: ArtifactArg,
    steps: Annotated[int, typer.Option(min=2, help="Steps behind the first one.")] = 20,
    threads: ThreadsOption = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OTHER.pock", help="Show it beside; or a profile's JSON file."),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="OUT.json", help="What pock-run --profile wrote; runs nothing."
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="time, order, gflops, gbs or roofline (farthest first).")
    ] = "time",
    top: Annotated[int, typer.Option(min=1, help="Kernel calls to show.")] = 20,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the whole profile.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a line per kernel call.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write a trace for ui.perfetto.dev."),
    ] = None,
    on: OnOption = None,
    port: PortOption = None,
    ssh_option: SshOption = None,
) -> None:
    """Run training steps on random data and show where time and memory go; nothing is changed.

    Examples:
        pockc profile model.pock

        pockc profile sparse.pock --compare full.pock --on pi@raspberrypi.local

        pockc profile model.pock --trace trace.json --csv kernels.csv --json profile.json

        pockc profile model.pock --from out.json     # of pock-run train --profile out.json
    """
    from pockc.cli.profile_tables import tables
    from pockc.profile import read_profile
    from pockc.profile.rows import csv_text
    from pockc.profile.trace import trace_text

    _check_order(sort)
    for path in (json, csv, trace):
        if path is not None:
            check_file_target(path)
    there = None if on is None else There.of(on, port, ssh_option)
    asked = Asked(steps, threads, there)
    profiles = [asked.profile(artifact, recording)]
    if compare is not None:
        is_file = compare.suffix == ".json"
        profiles.append(read_profile(compare) if is_file else asked.profile(compare, None))
    for made in tables(profiles, sort, top):
        say()
        show(made)
    first = profiles[0]
    _write(json, first.model_dump_json(indent=1) + "\n")
    _write(csv, csv_text(first, sort))
    _write(trace, trace_text(first))


def _check_order(sort: str) -> None:
    from pockc.profile.rows import ORDERS

    if sort not in ORDERS:
        what = f"kernels cannot be sorted by '{sort}'"
        raise UserError(Problem("profile-sort", what, fix=f"choose from: {', '.join(ORDERS)}"))


def _write(path: Path | None, text: str) -> None:
    from pockc.runtime.files import replaced_file

    if path is None:
        return
    with replaced_file(path, keep_previous=False) as file:
        file.write(text.encode())
    say(f"wrote {path}")


@dataclass(frozen=True)
class Asked:
    """How to record.

    Attributes:
        steps: Behind the first one.
        threads: Threads that run kernels; None is one per processor.
        there: Another machine, or None for this one.
    """

    steps: int
    threads: int | None
    there: There | None

    def profile(self, folder: Path, recording: Path | None) -> Profile:
        """Return the profile of an artifact, from a recording if there is one.

        Raises:
            UserError: [no-kernel-times] pockc does not run its steps; or what running raises.
        """
        from pockc.profile import joined, read_recording
        from pockc.profile.join import check_recordable
        from pockc.runtime.opening import read_manifest

        manifest = read_manifest(folder)
        check_recordable(folder, manifest)
        if recording is not None:
            return joined(read_recording(recording), folder)
        if self.there is None:
            return joined(self._record_here(folder), folder)
        if manifest.program == ONNX:
            what = f"{folder} holds ONNX models, and --on runs pock-run there"
            fix = "run pockc profile on that machine, with --json, and bring the file home"
            raise UserError(Problem("no-program", what, fix=fix))
        with tempfile.TemporaryDirectory(prefix="pockc-profile-") as name:
            path = Path(name) / SUFFIX
            self._record_there(folder, self.there, path)
            return joined(read_recording(path), folder)

    def _record_here(self, folder: Path) -> Recording:
        from pockc.profile.record import record

        with progress_bar() as bar:
            bar.update("measuring", 0, None, f"{self.steps} steps of {folder.name}")
            return record(folder, self.steps, self.threads)

    def _record_there(self, folder: Path, there: There, path: Path) -> None:
        from pockc.profile.record import VERB, record_words
        from pockc.remote import connect

        with connect(there.place.destination, there.ssh) as connection:
            send_artifact(folder, connection, there.place)
            recorded = there.place.path(folder.stem + SUFFIX)
            words = record_words(recorded, self.steps, self.threads)
            command = command_there(there.place, folder, VERB, *words)
            with progress_bar() as bar:
                bar.update("measuring", 0, None, f"{self.steps} steps of {folder.name}")
                status = connection.follow(command, _hand_on)
            if status != 0:
                raise failed_there(connection, VERB, status)
            connection.fetch(recorded, path)
            connection.run(f"rm -f {shlex.quote(recorded)}")


def _hand_on(line: str) -> None:
    """Show what is no event, as what the shell there says."""
    try:
        json_text.loads(line)
    except ValueError:
        warn(line)
