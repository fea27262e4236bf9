"""The `deploy` and `fetch` commands: an artifact goes to another machine, and comes home."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pockc.backends.native import COMMAND
from pockc.cli.console import Bar, progress_bar, say
from pockc.cli.text import size
from pockc.errors import Problem, UserError
from pockc.remote import (
    Connection,
    Deployed,
    Place,
    SshOptions,
    bring_back,
    connect,
    deploy,
    parse_place,
)


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
    def of(
        cls,
        text: str,
        port: int | None,
        options: list[str] | None,
        providers: list[str] | None = None,
    ) -> There:
        """Return what the options of a command line say.

        Raises:
            UserError: [provider-there] Providers are chosen, which no run there has.
        """
        if providers:
            what = (
                f"--provider {providers[0]} is for ONNX Runtime here; --on runs pock-run there"
            )
            raise UserError(Problem("provider-there", what, fix="leave out one of them"))
        return cls(parse_place(text), SshOptions(port, tuple(options or ())))

    @property
    def option(self) -> str:
        """The options again, to show a command line."""
        words = ["--on", str(self.place)]
        words += [] if self.ssh.port is None else ["--port", str(self.ssh.port)]
        for option in self.ssh.options:
            words += ["--ssh-option", option]
        return shlex.join(words)


def run_deploy(folder: Path, there: There, *, overwrite: bool) -> None:
    """Send an artifact, open it there, and say what to type next."""
    with connect(there.place.destination, there.ssh) as connection:
        done = send_artifact(folder, connection, there.place, overwrite=overwrite)
        say()
        check_opens(connection, there.place, folder)
    say()
    say(f"deployed {there.place.destination}:{done.path}")
    say(f"there    {command_there(there.place, folder, 'train', '--data', 'train.npz')}")
    say(f"here     pockc train {folder} {there.option} --data train.npz")


def run_fetch(folder: Path, there: There, save: Path) -> None:
    """Bring home what was trained on another machine."""
    with connect(there.place.destination, there.ssh) as connection:
        fetched = bring_back(connection, there.place.artifact(folder), folder, save)
    say(f"fetched  {', '.join(fetched)}")
    say(f"saved    {save}")


def send_artifact(
    folder: Path, connection: Connection, place: Place, *, overwrite: bool = False
) -> Deployed:
    """Send what the machine lacks of an artifact, and say what that was."""
    if not (folder / COMMAND).is_file():
        what = f"{folder} has no {COMMAND} to run it where there is no Python"
        raise UserError(Problem("no-program", what, fix="compile the model again"))
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


def command_there(place: Place, folder: Path, verb: str, *words: str) -> str:
    """Return the line of a shell that runs a verb of `pock-run` on an artifact there."""
    path = place.artifact(folder)
    # A relative path with a folder in it is not looked up among the shell's programs.
    return shlex.join([f"{path}/{COMMAND}", verb, path, *words])


def check_opens(connection: Connection, place: Place, folder: Path) -> None:
    """Show what the runtime there says of an artifact.

    Raises:
        UserError: [remote-run] It does not open it.
    """
    status = connection.show(command_there(place, folder, "info"))
    if status != 0:
        raise failed_there(connection, "info", status)


def failed_there(connection: Connection, verb: str, status: int) -> UserError:
    """Return the error of a verb of `pock-run` that failed on another machine."""
    what = f"{COMMAND} {verb} ended with status {status} on {connection.destination}"
    return UserError(Problem("remote-run", what, fix="what it said is above"))
