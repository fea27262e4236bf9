"""`pock-run` and `libpock`, built once; the toy artifact and data, written for every test."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc.backends.native import build_device
from tests.runtime.conftest import libraries, toy_path  # noqa: F401  fixtures
from tests.runtime.toy import toy_data


@dataclass(frozen=True)
class Command:
    """`pock-run`; calling it gives what it printed, and its exit status."""

    path: Path

    def __call__(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(self.path), *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=60,
            encoding="utf-8",
            errors="replace",
            **options,
        )

    def good(self, *arguments: object) -> str:
        """Run it, expect success, and return its output."""
        done = self(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bad(self, *arguments: object, status: int = 1) -> str:
        """Run it, expect failure, and return its error output."""
        done = self(*arguments)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr.rstrip("\n")

    def events(self, *arguments: object) -> list[dict[str, Any]]:
        """Run it with `--log-json`; return the events."""
        return [json.loads(line) for line in self.good(*arguments, "--log-json").splitlines()]


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `libpock.so` and `pock-run`."""
    folder = tmp_path_factory.mktemp("device")
    build_device(folder)
    return folder


@pytest.fixture(scope="session")
def pock_run(device: Path) -> Command:
    return Command(device / "pock-run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Fourteen rows: three batches of four, and two rows more."""
    return save_data(tmp_path / "train.npz", 14)


def save_data(path: Path, rows: int, seed: int = 0) -> Path:
    x, target = toy_data(rows, seed)
    np.savez(path, x=x, target=target)
    return path
