"""A small net, compiled twice: a sparse update, and everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockc.cli.app import run
from pockc.report.subject import Subject, read_subject

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24)) for _ in range(3)
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


torch.manual_seed(0)
model = Net()
example_inputs = (torch.zeros(16, 24),)
"""
CONFIG = """\
optimizer: {name: adam, lr: 0.01}
update:
  - {match: "layers.2.*", train: bias}
  - {match: "layers.2.2", train: all}
  - {match: "head", train: all}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sparse.pock, full.pock and data.npz."""
    path = tmp_path_factory.mktemp("report")
    (path / "net.py").write_text(MODEL, encoding="utf-8")
    (path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 24)).astype(np.float32)
    np.savez(path / "data.npz", x=x, target=rng.integers(0, 5, 64))
    model = str(path / "net.py")
    for words in (
        ("--sparse-update", str(path / "config.yaml"), "-o", str(path / "sparse.pock")),
        ("--preset", "full", "--optimizer", "adam", "-o", str(path / "full.pock")),
    ):
        assert run(["compile", model, *words]) == 0
    return path


@pytest.fixture(scope="session")
def sparse(folder: Path) -> Subject:
    return read_subject(folder / "sparse.pock")


@pytest.fixture(scope="session")
def full(folder: Path) -> Subject:
    return read_subject(folder / "full.pock")
