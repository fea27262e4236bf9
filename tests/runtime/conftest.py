"""The toy artifact: linked once, written anew for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pockc.runtime import Artifact, load
from tests.runtime.toy import link_toy, write_toy


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("toy")
    return {
        "plain": link_toy(folder),
        "micro": link_toy(folder, micro_batches=2),
        "fail": link_toy(folder, fail=True),
    }


@pytest.fixture
def toy_path(tmp_path: Path, libraries: dict[str, Path]) -> Path:
    return write_toy(tmp_path / "toy.pock", libraries["plain"])


@pytest.fixture
def toy(toy_path: Path) -> Artifact:
    return load(toy_path, threads=2)
