"""A net of two products, compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import pockc

ROWS, WIDTH, HIDDEN, CLASSES = 64, 256, 512, 16
PRODUCTS = {
    "forward": 2 * ROWS * (WIDTH * HIDDEN + HIDDEN * CLASSES),
    # Both weight gradients, and the input gradient of the second layer only.
    "late": 2 * ROWS * (WIDTH * HIDDEN + 2 * HIDDEN * CLASSES),
}
"""Operations of a step's forward pass and of the rest, two for each multiply-add."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN)
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def compiled_to(
    path: Path, net: nn.Module | None = None, x: torch.Tensor | None = None, **options: Any
) -> Path:
    torch.manual_seed(0)
    options = {"loss": "cross_entropy", "optimizer": "adam", **options}
    batch = (torch.zeros(ROWS, WIDTH) if x is None else x,)
    with pockc.compile(net or Net(), batch, **options) as artifact:
        artifact.save(path)
    return path
