"""Published models, unedited, compute in float64 what PyTorch computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from pockc.frontend.capture import capture
from pockc.ir import Gradient, Loss, Metric
from tests import zoo
from tests.frontend.helpers import predictions, run

# Angles of rotary positions are float32 in any of these models, and PyTorch's gradient of
# hard sigmoid and hard swish multiplies with 1/6 rounded to float32.
ROUNDED = {"llama", "llama_own_loss", "qwen2", "mobilenetv3_small_100"}


def double(example: zoo.Example) -> zoo.Example:
    def widen(x: torch.Tensor) -> torch.Tensor:
        return x.double() if x.is_floating_point() else x

    inputs = example.inputs
    if isinstance(inputs, Mapping):
        return replace(example, inputs={k: widen(v) for k, v in inputs.items()})
    return replace(example, inputs=tuple(map(widen, inputs)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", zoo.MODELS)
def test_an_unedited_model_computes_what_pytorch_computes(name: str) -> None:
    example = double(zoo.example(name))
    model = example.model.double()
    captured = capture(model, example.inputs, example.loss, target_example=example.target)
    given = example.inputs
    batch = [given[i.name] for i in captured.inputs] if isinstance(given, Mapping) else [*given]
    if example.target is not None:
        batch.append(example.target)
    loss = example.eager_loss()
    loss.backward()
    rtol = 1e-5 if name in ROUNDED else 1e-9
    actual = run(captured.train, captured, batch)
    np.testing.assert_allclose(actual[Loss()], loss.item(), rtol=rtol)
    named = dict(model.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in named.values() if p.grad is not None)
    assert {n for n, p in named.items() if p.grad is not None} == set(captured.parameters)
    for parameter in captured.parameters:
        expected = named[parameter].grad
        assert expected is not None
        np.testing.assert_allclose(
            actual[Gradient(parameter)],
            expected.numpy(),
            rtol=rtol,
            atol=rtol * largest,
            err_msg=parameter,
        )
    rows = run(captured.evaluate, captured, batch)
    if example.target is not None:
        mean = rows[Metric("loss_rows")].sum() / rows[Metric("weight_rows")].sum()
        np.testing.assert_allclose(mean, loss.item(), rtol=rtol)
    logits = example.outputs()
    logits = getattr(logits, "logits", logits).detach().numpy()
    (shown,) = predictions(run(captured.predict, captured, batch))
    np.testing.assert_allclose(shown, logits, rtol=rtol, atol=rtol * np.abs(logits).max())
