"""Models of timm and transformers, unedited: three compiled steps do what PyTorch's do."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pockc
from pockc.ir import DType
from tests.support import close
from tests.tolerances import Tolerance, tolerance
from tests.unedited import models

STEPS = 3

# What moves less than this has a gradient of zero but for rounding, as a bias of attention
# keys, which softmax cancels.
NOISE = 1e-9
# By how much more than PyTorch's float32 steps the compiled ones may be off.
SPREAD = 4
Batches = list[tuple[dict[str, Tensor], Tensor]]
Weights = Mapping[str, np.ndarray]


def eager_steps(model: nn.Module, batches: Batches, lr: float) -> list[float]:
    """Train a model with PyTorch as it is; return the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for inputs, target in batches:
        real = next(model.parameters()).dtype
        outputs = model(
            **{k: v.to(real) if v.is_floating_point() else v for k, v in inputs.items()}
        )
        logits = outputs if isinstance(outputs, Tensor) else outputs.logits
        loss = functional.cross_entropy(logits.flatten(0, -2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def weights_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {n: t.detach().numpy().copy() for n, t in model.state_dict().items()}


def same_training(
    actual: Weights, expected: Weights, before: Weights, eager: Weights | None = None
) -> None:
    """Assert that tensors have become the same, and by the same change.

    Three steps change a weight by a thousandth of itself or less, so that the weights of a
    step that does nothing would pass for right ones: the changes must agree too, as far as
    they stand out from the rounding of the weights themselves.

    Args:
        actual: What the compiled steps made of the weights.
        expected: What they should be.
        before: What they were.
        eager: What PyTorch's own float32 steps made of them, where `expected` is exact. In a
            net of many kinks and random weights rounding alone moves gradients by more than
            the table has; the compiled step may be off by a few times as much as PyTorch's.
    """
    assert set(actual) == set(expected)
    eager = eager or expected
    row = tolerance(DType.F32, "training")
    for name, value in expected.items():
        try:
            allowed = tolerance(DType.F32, "training") if value.dtype == np.float32 else None
            if allowed is None:
                np.testing.assert_array_equal(actual[name], value)
                continue
            size = float(np.abs(value).max(initial=0))
            noise = SPREAD * float(np.abs(eager[name] - value).max(initial=0))
            if size > NOISE:
                near = Tolerance(row.rtol, row.atol + noise / size, "see above")
                close(actual[name], value, near)
            else:
                assert np.abs(actual[name]).max(initial=0) <= NOISE
            change = value - before[name]
            largest = float(np.abs(change).max(initial=0))
            rounding = noise + STEPS * float(np.spacing(np.abs(value).max(initial=0)))
            if largest > NOISE:
                close(
                    actual[name] - before[name],
                    change,
                    Tolerance(row.rtol, 10 * row.atol + rounding / largest, "see above"),
                )
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
@pytest.mark.parametrize("name", models.ZOO)
def test_three_steps_equal_those_of_pytorch(name: str) -> None:
    model, batches, lr = models.make(name), models.batches(name, STEPS), models.ZOO[name].lr
    artifact = pockc.compile(model, batches[0][0], optimizer={"name": "sgd", "lr": lr})
    before = weights_of(model)
    exact = copy.deepcopy(model).double()
    expected = eager_steps(exact, batches, lr)
    eager_steps(model, batches, lr)
    found = [
        artifact.train_step(*(t.numpy() for t in inputs.values()), target.numpy())
        for inputs, target in batches
    ]
    assert all(np.isfinite(expected))
    close(
        np.array(found, np.float32),
        np.array(expected, np.float32),
        tolerance(DType.F32, "training"),
    )
    rounded = {n: a.astype(before[n].dtype) for n, a in weights_of(exact).items()}
    same_training(artifact.state_dict(), rounded, before, eager=weights_of(model))


@pytest.mark.needs_torch
def test_training_that_did_nothing_or_went_the_wrong_way_is_noticed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))
    before = weights_of(model)
    trained = copy.deepcopy(model)
    data = [({"input": torch.randn(4, 8)}, torch.randint(5, (4,))) for _ in range(STEPS)]
    eager_steps(trained, data, 1e-4)
    after = weights_of(trained)
    same_training(after, after, before)
    with pytest.raises(AssertionError, match=r"0\.weight"):
        same_training(before, after, before)
    wrong_way = {n: 2 * before[n] - a for n, a in after.items()}
    with pytest.raises(AssertionError, match=r"0\.weight"):
        same_training(wrong_way, after, before)
    twice = {n: 2 * a - before[n] for n, a in after.items()}
    with pytest.raises(AssertionError, match=r"0\.weight"):
        same_training(twice, after, before)
