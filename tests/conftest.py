"""Golden texts: `--bless` writes them, and a full run fails on one that no test reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pockc.cli.app import run
from tests.support import GOLDEN, Command, Golden

ROOT = Path(__file__).parent
_READ = pytest.StashKey[set[str]]()
_UNREAD = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write golden texts as they are found"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bless") and os.environ.get("CI"):
        raise pytest.UsageError(
            "--bless is refused where CI is set: goldens are written by hand"
        )
    config.stash[_READ] = set()
    config.stash[_UNREAD] = []


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The golden texts of a test, in the folder `golden` beside it."""
    config = request.config

    def read(path: Path) -> None:
        config.stash[_READ].add(str(path))

    name = request.node.name.removeprefix("test_")
    stem = request.path.stem.removeprefix("test_")
    return Golden(
        request.path.parent / GOLDEN,
        f"{stem}/{name}.pock",
        bool(config.getoption("--bless")),
        read,
    )


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command of pockc; returns its exit status, output and error output."""

    def call(*words: object) -> tuple[int, str, str]:
        status = run([str(w) for w in words])
        out, err = capfd.readouterr()
        return status, out, err

    return call


def unread_goldens(root: Path, read: set[str]) -> list[str]:
    """Return the golden files under a folder that are not among those that were read."""
    files = (p for p in root.rglob(f"{GOLDEN}/**/*") if p.is_file())
    return sorted(str(p.relative_to(root)) for p in files if str(p) not in read)


def is_full_run(config: pytest.Config) -> bool:
    """Whether every test was asked for: no paths, no names, no markers."""
    option = config.option
    chosen = option.keyword or option.markexpr or getattr(option, "lf", False)
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return everything and not chosen and not option.collectonly


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect what the workers of pytest-xdist have read."""
    node.config.stash[_READ].update(getattr(node, "workeroutput", {}).get("goldens", ()))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    read: set[str] = config.stash[_READ]
    if hasattr(config, "workeroutput"):
        config.workeroutput["goldens"] = sorted(read)
        return
    if is_full_run(config) and exitstatus == pytest.ExitCode.OK:
        unread = unread_goldens(ROOT, read)
        config.stash[_UNREAD] = unread
        if unread:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    unread = config.stash.get(_UNREAD, [])
    if unread:
        terminalreporter.section("golden texts that no test reads: delete them", red=True)
        for path in unread:
            terminalreporter.line(f"tests/{path}")
