"""Verbs of `pock-run` on an artifact, on this machine or on another one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pockc.backends.native import COMMAND
from pockc.cli.console import progress_bar
from pockc.cli.deploying import (
    There,
    command_there,
    failed_there,
    send_artifact,
    shown_on,
)
from pockc.cli.places import check_source
from pockc.errors import Problem, UserError
from pockc.profile.record import program_here
from pockc.remote import connect, send_files


def run_here(folder: Path, verb: str, *words: str) -> None:
    """Run a verb of the artifact's own `pock-run`; its output goes where ours goes.

    Raises:
        UserError: The artifact is for another machine, or has no such program; [run] it failed.
    """
    done = subprocess.run([str(program_here(folder)), verb, str(folder), *words], check=False)
    if done.returncode != 0:
        what = f"{COMMAND} {verb} ended with status {done.returncode}"
        raise UserError(Problem("run", what, fix="what it said is above"))


def run_there(
    folder: Path, there: There, verb: str, words: list[str], data: Path | None = None
) -> None:
    """Run a verb on another machine, with what it needs there; show what it says.

    Args:
        folder: The artifact.
        there: The machine.
        verb: Of `pock-run`.
        words: Its options.
        data: A file for its option `--data`, which is sent.

    Raises:
        UserError: [remote-run] It failed there; or what sending raises.
    """
    if data is not None:
        check_source(data)
    with connect(there.place.destination, there.ssh) as connection:
        send_artifact(folder, connection, there.place)
        if data is not None:
            with progress_bar() as bar:
                path = send_files(connection, there.place, [data], shown_on(bar))[data]
            words = ["--data", path, *words]
        status = connection.show(command_there(there.place, folder, verb, *words))
        if status != 0:
            raise failed_there(connection, verb, status)
