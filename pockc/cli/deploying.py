"""The `deploy` command: an artifact goes to another machine and is opened there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pockc.cli.console import Bar, progress_bar, say
from pockc.cli.text import size
from pockc.errors import Problem, UserError
from pockc.remote import (
    Connection,
    Deployed,
    Place,
    SshOptions,
    connect,
    deploy,
    parse_place,
)
from pockc.runtime.manifest import RUN_FILE


@dataclass(frozen=True)
class There:
    """Another machine, as the command line names it.

    Attributes:
        place: The folder there.
        ssh: How to reach it.
    """

    place: Place
    ssh: SshOptions

    @classmethod
    def of(cls, text: str, port: int | None, options: list[str] | None) -> There:
        """Return what the options of a command line say."""
        return cls(parse_place(text), SshOptions(port, tuple(options or ())))

    @property
    def words(self) -> str:
        """The options again, to show a command line."""
        words = [] if self.ssh.port is None else ["--port", str(self.ssh.port)]
        for option in self.ssh.options:
            words += ["--ssh-option", option]
        return " ".join(map(shlex.quote, words))


def run_deploy(folder: Path, there: There, *, overwrite: bool) -> None:
    """Send an artifact, open it there, and say what to type next."""
    with connect(there.place.destination, there.ssh) as connection:
        done = send_artifact(folder, connection, there.place, overwrite=overwrite)
        say()
        check_opens(connection, done.path)
    place = f"{there.place.destination}:{done.path}"
    program = shlex.quote(f"{done.path}/{RUN_FILE}")
    on = f"--on {there.place}" + (f" {there.words}" if there.words else "")
    say()
    say(f"deployed {place}")
    say(f"there    {program} train {shlex.quote(done.path)} --data train.npz")
    say(f"here     pockc train {folder} {on} --data train.npz")


def send_artifact(
    folder: Path, connection: Connection, place: Place, *, overwrite: bool
) -> Deployed:
    """Send what the machine lacks of an artifact, and say what that was."""
    with progress_bar() as bar:
        done = deploy(folder, connection, place, shown_on(bar), overwrite=overwrite)
    if done.sent:
        say(f"sent     {', '.join(done.sent)} ({size(done.sent_bytes)})")
    if done.kept:
        say(f"there    {', '.join(done.kept)}")
    return done


def shown_on(bar: Bar) -> Callable[[str, int, int], None]:
    """Return a callback that shows bytes on a bar."""

    def show(name: str, done: int, total: int) -> None:
        bar.update("sending", done, total, name)

    return show


def check_opens(connection: Connection, path: str) -> None:
    """Show what the runtime there says of an artifact.

    Raises:
        UserError: [remote-run] It does not open it.
    """
    program = shlex.quote(f"./{path}/{RUN_FILE}" if path[0] != "/" else f"{path}/{RUN_FILE}")
    status = connection.show(f"{program} info {shlex.quote(path)}")
    if status != 0:
        what = f"{RUN_FILE} info ended with status {status} on {connection.destination}"
        fix = "what it said is above; compile for that machine: --target"
        raise UserError(Problem("remote-run", what, fix=fix))
