"""Dropout: its share, its mask in forward and backward, its seed, and where it is off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pockc.frontend.capture import capture
from pockc.frontend.captured import Captured
from pockc.ir import Gradient, Loss, Scalar
from tests.frontend.helpers import agree, predictions, run

ROWS, WIDTH, P = 200, 100, 0.3


class Drops(nn.Module):
    """Its gradient is the mask that forward used: loss = sum of dropout(weight) * x."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.ones(ROWS, WIDTH, dtype=torch.float64)) for _ in range(layers)
        )
        self.drop = nn.Dropout(P)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.drop(w) * x).sum() for w in self.weights]).sum()


X = torch.ones(ROWS, 1, dtype=torch.float64)


def masks(captured: Captured, seed: int) -> list[np.ndarray]:
    out = run(captured.train, captured, (X,), seed=seed)
    return [out[Gradient(f"weights.{i}")] for i in range(len(captured.parameters))]


@pytest.fixture(scope="module")
def captured() -> Captured:
    return capture(Drops(2), (X,), "model")


def test_a_share_is_dropped_and_the_rest_scaled(captured: Captured) -> None:
    mask = masks(captured, 0)[0]
    assert set(np.unique(mask)) == {0.0, 1.0 / (1.0 - P)}
    dropped = (mask == 0).mean()
    # Four standard deviations of the mean of so many coin tosses.
    assert abs(dropped - P) < 4 * np.sqrt(P * (1 - P) / mask.size)
    per_row = (mask == 0).mean(1)
    assert per_row.std() < 2 * np.sqrt(P * (1 - P) / WIDTH)


def test_backward_drops_what_forward_dropped(captured: Captured) -> None:
    out = run(captured.train, captured, (X,), seed=7)
    total = sum(m.sum() for m in masks(captured, 7))
    np.testing.assert_allclose(out[Loss()], total, rtol=1e-12)
    other = sum(m.sum() for m in masks(captured, 8))
    assert abs(out[Loss()] - other) > 1.0


def test_seed_and_place_make_the_mask(captured: Captured) -> None:
    first, second = masks(captured, 0)
    assert np.array_equal(first, masks(captured, 0)[0])
    same = (first == masks(captured, 1)[0]).mean()
    between = (first == second).mean()
    chance = P * P + (1 - P) * (1 - P)
    assert abs(same - chance) < 0.02
    assert abs(between - chance) < 0.02


def test_salts_are_numbered_in_order(captured: Captured) -> None:
    salts = [n.attrs["salt"] for n in captured.train.nodes if n.op == "random_uniform"]
    assert salts == [0, 1]


def test_dropout_is_off_in_evaluation(captured: Captured) -> None:
    for graph in (captured.evaluate, captured.predict):
        assert graph.input_of(Scalar("seed")) is None
        assert not [n for n in graph.nodes if n.op == "random_uniform"]
    assert float(run(captured.evaluate, captured, (X,))[Loss()]) == 2 * ROWS * WIDTH


def test_a_model_without_dropout_needs_no_seed() -> None:
    quiet = capture(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0)), torch.randn(2, 3))
    assert quiet.train.input_of(Scalar("seed")) is None


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(2, 2, 5, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        p = 0.5 if self.training else 0.0
        return F.scaled_dot_product_attention(self.q * x, self.q, self.q, dropout_p=p)


def test_dropout_inside_attention_is_dropout() -> None:
    model, x = Attends(), torch.ones(2, 1, 1, 1, dtype=torch.float64)
    found = capture(model, (x,), "mse")
    assert found.train.input_of(Scalar("seed")) is not None
    (shown,) = predictions(run(found.predict, found, (x,)))
    agree(shown, model.eval()(x))


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        drop_path = x.new_empty(x.shape[0], 1).bernoulli_(0.8).div_(0.8)
        features = F.dropout1d(x.expand(-1, 40)[:, :, None] * self.w, 0.25, training=True)
        normal, unit = torch.randn_like(x.expand(-1, 50)), torch.rand(ROWS, 50)
        total = (x * self.w * drop_path).sum() + features.sum()
        return total, drop_path, features, normal, unit, torch.rand(ROWS) < 0.1


def test_other_random_numbers_are_distributed_as_in_pytorch() -> None:
    found = capture(Noise(), (X,), "model")
    drop_path, features, normal, unit, rare = predictions(
        run(found.predict, found, (X,), seed=3)
    )
    assert set(np.unique(drop_path)) == {0.0, 1.25}
    assert abs((drop_path > 0).mean() - 0.8) < 0.12
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert abs(np.abs(normal).max() - 3.7) < 1
    assert abs(unit.mean() - 0.5) < 0.02
    assert 0 <= unit.min() < unit.max() < 1
    assert abs(rare.mean() - 0.1) < 0.1
    assert set(np.unique(features)) == {1.0}
