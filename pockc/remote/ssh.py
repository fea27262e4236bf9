"""Runs commands and copies files with the system's `ssh`: its keys, its configuration.

Every command goes through one connection that stays open, so that a password is asked for once.
Files travel through `cat` on the other side; neither sftp nor scp need be there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pockc.errors import Problem, UserError

Sent = Callable[[int], None]
"""Called with the number of bytes that have gone since the last call."""

_CHUNK_BYTES = 1 << 18
# What ssh itself ends with when it has not run the command.
_NO_CONNECTION = 255


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to reach the machine, beyond what ssh's configuration says.

    Attributes:
        port: Its port; None leaves that to ssh.
        options: Further options of ssh: `-i key`, or as its configuration has them,
            `StrictHostKeyChecking=no`.
    """

    port: int | None = None
    options: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return them as words of a command line."""
        words = [] if self.port is None else ["-p", str(self.port)]
        for option in self.options:
            words += shlex.split(option) if option.startswith("-") else ["-o", option]
        return words


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection; made by `connect`.

    Attributes:
        destination: What ssh connects to.
        command: The words of ssh up to the destination.
    """

    destination: str
    command: tuple[str, ...] = field(repr=False)

    def run(self, script: str) -> str:
        """Run a script of sh in the user's home and return what it writes.

        Raises:
            UserError: [ssh-failed] There is no connection; [remote-failed] the script failed.
        """
        done = subprocess.run(
            self._words(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        self._check(done.returncode, done.stderr)
        return done.stdout.decode(errors="replace")

    def show(self, script: str) -> int:
        """Run a script whose output goes where ours goes; return its exit status.

        With a terminal here it gets one there: progress is drawn, and Ctrl-C reaches it.

        Raises:
            UserError: [ssh-failed] There is no connection.
        """
        terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        stdin = None if terminal else subprocess.DEVNULL
        done = subprocess.run(
            [*self.command, *terminal, self.destination, _quoted(script)],
            stdin=stdin,
            check=False,
        )
        if done.returncode == _NO_CONNECTION:
            self._check(done.returncode, b"the connection ended")
        return done.returncode

    def follow(self, script: str, line: Callable[[str], None]) -> int:
        """Run a script and hand on each line that it writes; return its exit status.

        Ctrl-C is handed on, once: the script is told to end, and followed until it does.

        Raises:
            UserError: [ssh-failed] The connection ended; the script may go on.
        """
        # Of a session of its own, so that Ctrl-C in the terminal does not end ssh itself.
        with subprocess.Popen(
            self._words(f"echo $$; exec {script}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            output = process.stdout or ()
            number = next(iter(output), "").strip()
            try:
                _hand_on(output, line)
            except KeyboardInterrupt:
                self.run(f"kill -INT {int(number)}")
                _hand_on(output, line)
            code = process.wait()
        if code == _NO_CONNECTION:
            self._check(code, b"the connection ended; what it ran may go on")
        return code

    def send(self, source: Path, target: str, sent: Sent) -> None:
        """Copy a file there.

        Raises:
            UserError: [ssh-failed], [remote-failed] as on a full disk.
        """
        with source.open("rb") as file, tempfile.TemporaryFile() as words:
            process = subprocess.Popen(
                self._words(f"cat > {shlex.quote(target)}"), stdin=subprocess.PIPE, stderr=words
            )
            self._pump(process, file.fileno(), sent)
            code = process.wait()
            words.seek(0)
            self._check(code, words.read())

    @staticmethod
    def _pump(process: subprocess.Popen[bytes], source: int, sent: Sent) -> None:
        pipe = process.stdin
        if pipe is None:  # it was asked for
            return
        try:
            while chunk := os.read(source, _CHUNK_BYTES):
                pipe.write(chunk)
                sent(len(chunk))
            pipe.close()
        except BrokenPipeError:
            pass  # the other side says why when it ends

    def fetch(self, source: str, target: Path) -> None:
        """Copy a file from there; `target` appears whole or not at all.

        Raises:
            UserError: [ssh-failed], [remote-failed] as for a file that is not there.
        """
        handle, name = tempfile.mkstemp(dir=target.absolute().parent, prefix=".fetch-")
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                done = subprocess.run(
                    self._words(f"cat {shlex.quote(source)}"),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.PIPE,
                    check=False,
                )
                self._check(done.returncode, done.stderr)
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(0o644)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _words(self, script: str) -> list[str]:
        return [*self.command, self.destination, _quoted(script)]

    def _check(self, code: int, words: bytes) -> None:
        said = words.decode(errors="replace").strip()
        if code == _NO_CONNECTION:
            what = f"ssh does not reach {self.destination}: {said}"
            fix = f"try it by hand: {shlex.join([*_shown(self.command), self.destination])}"
            raise UserError(Problem("ssh-failed", what, fix=fix))
        if code != 0:
            what = f"a command on {self.destination} ended with status {code}: {said}"
            fix = "check that the folder can be written and the disk has room"
            raise UserError(Problem("remote-failed", what, fix=fix))


def _hand_on(output: Iterable[str], line: Callable[[str], None]) -> None:
    for text in output:
        line(text.rstrip("\n"))


def _quoted(script: str) -> str:
    """Return a command for the user's own shell, which need not be one of POSIX."""
    return f"exec sh -c {shlex.quote(script)}"


def _shown(command: Sequence[str]) -> list[str]:
    """Return the words without those that keep the connection open."""
    return [w for w in command if not w.startswith("-oControl")]


@contextmanager
def connect(destination: str, options: SshOptions) -> Iterator[Connection]:
    """Give a connection; it is closed at the end.

    Raises:
        UserError: [no-ssh] There is no ssh here; [ssh-failed] it does not connect.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        what = "there is no program 'ssh'"
        raise UserError(Problem("no-ssh", what, fix="install OpenSSH's client"))
    with tempfile.TemporaryDirectory(prefix="pockc-", dir=_short_folder()) as folder:
        keep = [
            "-oControlMaster=auto",
            f"-oControlPath={folder}/%C",
            "-oControlPersist=60",
        ]
        connection = Connection(destination, (ssh, *options.words(), *keep))
        try:
            connection.run(":")
            yield connection
        finally:
            subprocess.run(
                [*connection.command, "-O", "exit", destination],
                capture_output=True,
                check=False,
            )


def _short_folder() -> str | None:
    """Return where a socket's path is short enough: the system allows about 100 bytes."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None
