"""Each operation and its gradient at float64: against PyTorch, and against central differences.

PyTorch is the first witness; the second catches an importer that shares a mistake with it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch

from pockc.frontend.capture import capture
from pockc.frontend.captured import Captured
from pockc.ir import Gradient, Loss, OutputRole
from tests.frontend.helpers import Case, Family, agree, loss_of, predictions, run
from tests.frontend.op_cases import FAMILIES

SCALE = torch.tensor(1.25, dtype=torch.float64)

# A gradient that torch drops on purpose is no slope.
NO_SLOPE = {"embedding padding"}


@functools.cache
def _captured(family: str) -> tuple[Family, Captured]:
    model = Family(FAMILIES[family])
    return model, capture(model, (SCALE,), "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_those_of_pytorch(family: str) -> None:
    model, captured = _captured(family)
    total, *results = model(SCALE)
    total.backward()
    actual = run(captured.train, captured, (SCALE,))
    shown = predictions(run(captured.predict, captured, (SCALE,)))
    agree(actual[Loss()], total)
    wrong = [
        message
        for i, c in enumerate(model.cases)
        for message in _differences(model, i, c, shown[i], results[i], actual)
    ]
    assert not wrong, "\n".join(wrong)


def _differences(
    model: Family,
    i: int,
    c: Case,
    shown: np.ndarray,
    expected: torch.Tensor,
    actual: Mapping[OutputRole, np.ndarray],
) -> Iterator[str]:
    pairs = [(shown, expected)]
    for k in range(len(c.shapes)):
        grad = model.operands[f"{i}_{k}"].grad
        if grad is not None:
            pairs.append((actual[Gradient(f"operands.{i}_{k}")], grad))
    try:
        for found, wanted in pairs:
            agree(found, wanted)
    except AssertionError as error:
        yield f"{c.name}: {error}"


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_central_differences(family: str) -> None:
    model, captured = _captured(family)
    gradients = run(captured.train, captured, (SCALE,))
    rng = np.random.default_rng(3)
    wrong = []
    for i, c in enumerate(model.cases):
        names = [f"operands.{i}_{k}" for k in range(len(c.shapes))]
        names = [n for n in names if n in captured.parameters and c.name not in NO_SLOPE]
        directions = {n: rng.standard_normal(captured.values[n].shape) for n in names}
        slope = sum(float((gradients[Gradient(n)] * d).sum()) for n, d in directions.items())
        measured = _slope(captured, directions)
        if not math.isclose(slope, measured, rel_tol=1e-5, abs_tol=1e-5):
            wrong.append(f"{c.name}: gradient {slope}, difference {measured}")
    assert not wrong, "\n".join(wrong)


def _slope(captured: Captured, directions: dict[str, np.ndarray], step: float = 1e-6) -> float:
    """Return the central difference of the loss along a direction."""
    ends = []
    for sign in (1, -1):
        moved = {n: captured.values[n] + sign * step * d for n, d in directions.items()}
        ends.append(loss_of(captured, {**captured.values, **moved}, (SCALE,)))
    return (ends[0] - ends[1]) / (2 * step)


def test_a_wrong_gradient_is_no_central_difference() -> None:
    _, captured = _captured("products")
    direction = np.ones((2, 3))
    true = float(run(captured.train, captured, (SCALE,))[Gradient("operands.0_0")].sum())
    assert math.isclose(true, _slope(captured, {"operands.0_0": direction}), rel_tol=1e-6)
    assert not math.isclose(
        2 * true, _slope(captured, {"operands.0_0": direction}), rel_tol=0.1
    )
