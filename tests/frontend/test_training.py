"""Ten steps of each net with each optimizer, captured gradients and recipes, beside PyTorch.

This is the third witness of the gradients: what one step gets wrong, the next ones show.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from pockc import interp
from pockc.frontend.capture import capture
from pockc.frontend.captured import Captured
from pockc.frontend.optimizers import recipe
from pockc.ir import (
    Batch,
    Gradient,
    InputRole,
    Loss,
    OptState,
    Param,
    Scalar,
    StateUpdate,
    Update,
)
from tests import nets
from tests.frontend.helpers import as_double, run
from tests.frontend.test_capture import cross_entropy
from tests.frontend.test_optimizers import TORCHS

LR, STEPS, ROWS = 2.0**-7, 10, 4
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(("mlp", name, {}) for name in TORCHS),
    ("mlp", "sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("mobilenet", "sgd", {"momentum": 0.9}),
    ("mobilenet", "rmsprop", {}),
    ("resnet", "adamw", {"weight_decay": 0.1}),
    ("bert", "adam", {}),
    ("bert", "adafactor", {}),
    ("llama", "adamw", {}),
    ("llama", "lion", {}),
]


@functools.cache
def captured_net(net: str) -> Captured:
    model = nets.make(net).double().eval()
    batch = as_double(nets.batches(net, ROWS, 1)[0])
    return capture(model, batch[:-1], target_example=batch[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("net", "name", "options"), CASES)
def test_ten_steps_are_those_of_pytorch(net: str, name: str, options: dict[str, Any]) -> None:
    model = nets.make(net).double().eval()
    batches = [as_double(b) for b in nets.batches(net, ROWS, STEPS)]
    captured = captured_net(net)
    optimizer = TORCHS[name](model.parameters(), lr=LR, **options)
    recipes = {
        n: recipe({"name": name, **options}, p.type) for n, p in captured.parameters.items()
    }
    values = dict(captured.values)
    state = {
        (n, s): np.full(slot.type.shape, slot.initial)
        for n, made in recipes.items()
        for s, slot in made.slots.items()
    }
    for step, batch in enumerate(batches, 1):
        optimizer.zero_grad()
        loss = cross_entropy(model(*batch[:-1]), batch[-1])
        loss.backward()
        optimizer.step()
        results = run(captured.train, captured, batch, values)
        # Rotary angles are float32, and what Lion's sign makes of a last bit is a whole step.
        rtol = 1e-9 if net != "llama" else 1e-3 if name == "lion" else 1e-5
        np.testing.assert_allclose(results[Loss()], loss.item(), rtol=rtol)
        for n, made in recipes.items():
            given: dict[InputRole, Any] = {
                Param("p"): values[n],
                Batch("grad"): results[Gradient(n)],
                Scalar("lr"): np.float32(LR),
                Scalar("step"): np.float32(step),
            }
            given |= {OptState(s, "p"): state[n, s] for s in made.slots}
            after = interp.run(made.graph, {i.role: given[i.role] for i in made.graph.inputs})
            values[n] = after[Update("p")]
            state.update({(n, s): after[StateUpdate(s, "p")] for s in made.slots})
    moved = _distance(captured.values, values)
    apart = _distance({n: p.detach().numpy() for n, p in model.named_parameters()}, values)
    assert moved > 1e-3
    assert apart < 1e-7 * moved if net not in ("llama", "bert") else apart < 0.05 * moved


def _distance(a: Any, b: Any) -> float:
    """Return the largest difference of a parameter."""
    return max(float(np.abs(a[n] - b[n]).max()) for n in a if n in b)


def test_a_difference_of_one_part_in_a_million_is_found() -> None:
    start = {"w": torch.zeros(3).numpy()}
    assert _distance(start, {"w": np.array([0, 1e-6, 0])}) > 1e-7
