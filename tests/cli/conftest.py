"""The toy artifact of the runtime's tests, and data for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runtime.toy import C, K, link_toy, write_toy
from tests.support import Command


@pytest.fixture(scope="session")
def toy_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy_path(tmp_path: Path, toy_library: Path) -> Path:
    return write_toy(tmp_path / "toy.pock", toy_library)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten rows for the toy."""
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    x = rng.standard_normal((10, C)).astype(np.float32)
    np.savez(path, x=x, target=rng.integers(0, K, 10))
    return path


@pytest.fixture
def pockc(command: Command) -> Command:
    """The command line."""
    return command
