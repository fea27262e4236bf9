"""What goes home is what the model's `state_dict` has: no more, no less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pockc
from pockc.cli.exporting import state_of

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


class Scaled(nn.Module):
    """A layer with a buffer that is not persistent, and one that is."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale + self.shift


def test_a_buffer_that_is_not_persistent_stays_at_home(tmp_path: Path) -> None:
    model = Scaled()
    x = np.ones((2, 4), np.float32)
    artifact = pockc.compile(model, torch.from_numpy(x))
    before = artifact.predict(x)
    state = artifact.state_dict()
    assert sorted(state) == ["layer.bias", "layer.weight", "shift"]
    artifact.save(tmp_path / "model.pock")
    assert state_of(tmp_path / "model.pock")[0].keys() == state.keys()
    changed = {k: v + 1 if k.startswith("layer") else v for k, v in state.items()}
    artifact.load_state(changed)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in changed.items()}, strict=True)
    expected = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(artifact.predict(x), expected, rtol=1e-5)
    assert not np.allclose(before, expected)
