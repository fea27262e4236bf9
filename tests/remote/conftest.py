"""A machine to deploy to: an OpenSSH server of our own, whose home is a bare folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pockc.remote import Connection, Place, SshOptions, connect
from tests.programs import need_program

# What a board has at least; no Python, no compiler.
PROGRAMS = ("sh", "cat", "chmod", "mkdir", "mv", "rm", "sync", "uname", "sha256sum", "sleep")


@dataclass
class Machine:
    """The server.

    Attributes:
        home: The home of its user, here.
        programs: The folder of the only programs that a session finds.
        options: How to reach it.
        destination: The same for `--on`.
    """

    home: Path
    programs: Path
    options: SshOptions
    destination: str

    def place(self, folder: str = ".") -> Place:
        return Place(self.destination, folder)

    @property
    def words(self) -> list[str]:
        """The options of the command line that reach it."""
        words = ["--port", str(self.options.port)]
        for option in self.options.options:
            words += ["--ssh-option", option]
        return words


def _write_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _session(folder: Path, home: Path, programs: Path) -> Path:
    """Write what every session runs: its command, in the bare home."""
    script = folder / "session"
    script.write_text(
        "#!/bin/sh\n"
        f"export HOME='{home}' PATH='{programs}'\n"
        'cd "$HOME" || exit 1\n'
        'exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    script.chmod(0o755)
    return script


def _configure(folder: Path, port: int, session: Path) -> Path:
    for name in ("host", "user"):
        _write_key(folder / name)
    shutil.copyfile(folder / "user.pub", folder / "authorized")
    key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nPidFile none\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"PermitRootLogin yes\nForceCommand {session}\n"
    )
    return config


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if server.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"sshd does not answer: {log.read_text()}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need_program("ssh")
    sshd = need_program("sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root separates privileges
    folder = tmp_path_factory.mktemp("ssh")
    home, programs = folder / "home", folder / "programs"
    for made in (home, programs):
        made.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(str(shutil.which(name)))
    port = _free_port()
    config = _configure(folder, port, _session(folder, home, programs))
    log = folder / "log"
    process = subprocess.Popen([sshd, "-D", "-f", str(config), "-E", str(log)])
    try:
        _await(port, process, log)
        options = (f"-i {folder / 'user'}", "IdentitiesOnly=yes", "BatchMode=yes",
                   f"UserKnownHostsFile={folder / 'known'}")  # fmt: skip
        yield Machine(home, programs, SshOptions(port, options), "127.0.0.1")
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def machine(server: Machine) -> Iterator[Machine]:
    """The server with an empty home."""
    yield server
    for path in server.home.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def connection(machine: Machine) -> Iterator[Connection]:
    with connect(machine.destination, machine.options) as opened:
        yield opened
