"""What the forward pass keeps for the backward pass, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pockc import backends, driver
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.ir import Graph, Param, Update
from pockc.passes import pipeline
from pockc.scheme import Config, report, resolve
from tests import nets

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

N = 8
# Cross-entropy keeps the logits (5 classes), a sum per row, and the number of rows that count.
LOSS = 4 * (N * 5 + N + 1)
HALF = {"count": 10, "axis": "in", "by": "first"}


class Convolutional(nn.Module):
    """One convolution, one activation, a mean over the image, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.conv(x)).mean((2, 3)))


def captured(model: nn.Module, x: Tensor) -> Captured:
    return driver.capture_model(UserModel(model, (x,)), Config(), driver.Options())


def step_of(traced: Captured, update: list[dict[str, Any]]) -> Graph:
    """Return the finished training step of a scheme."""
    config = driver.read_config({"update": update}, {"optimizer": {"name": "sgd", "lr": 0.1}})
    scheme = resolve(config, traced.parameters, traced.values, traced.modules, traced.aliases)
    recipes = driver._recipes(traced, scheme, config)
    choices = driver._choices(traced, scheme, config, recipes, backends.get("tvm"))
    return pipeline.compile_entries({"train": traced.train}, choices)["train_step"]


@pytest.fixture(scope="module")
def mlp() -> Captured:
    return captured(nets.make("mlp"), nets.batches("mlp", N, 1)[0][0])


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # The inputs of the second and third layer, and that of GELU. ReLU's mask is seen in
        # the second layer's input.
        ([{"match": "*", "train": "all"}], 4 * N * (20 + 20 + 20)),
        # Masks and GELU's input, no inputs of layers.
        ([{"match": "*", "train": "bias"}], 4 * N * (20 + 20)),
        # The classifier's input alone.
        ([{"match": "head.*", "train": "all"}], 4 * N * 20),
        # Its gradient is a sum over rows of softmax, whose row statistics are kept: two more
        # numbers per row.
        ([{"match": "head.bias", "train": "all"}], 2 * 4 * N),
        # Half of the classifier's inputs.
        (
            [{"match": "head", "train": "weight", "channels": HALF}],
            4 * N * 10,
        ),
    ],
)  # fmt: skip
def test_a_perceptron_keeps_what_the_formula_says(
    mlp: Captured, update: list[dict[str, Any]], expected: int
) -> None:
    assert report.saved_activation_bytes(step_of(mlp, update)) == expected + LOSS


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # ReLU's result as a mask, one byte per element; the classifier's input; the images are
        # copied to channels last for the filters' gradient.
        ([{"match": "*", "train": "all"}], N * 4 * 64 + 4 * N * 4 + 4 * N * 3 * 64),
        ([{"match": "conv.bias", "train": "all"}], N * 4 * 64),
        ([{"match": "head", "train": "all"}], 4 * N * 4),
    ],
)
def test_a_convolution_keeps_what_the_formula_says(
    update: list[dict[str, Any]], expected: int
) -> None:
    torch.manual_seed(0)
    traced = captured(Convolutional(), torch.randn(N, 3, 8, 8))
    assert report.saved_activation_bytes(step_of(traced, update)) == expected + LOSS


@pytest.mark.parametrize("name", sorted(nets.NETS))
def test_nothing_is_computed_for_what_is_frozen(name: str) -> None:
    traced = captured_net(name)
    update = [{"match": m, "train": "all"} for m in nets.NETS[name].last]
    graph = step_of(traced, update)
    updated = {o.role.param for o in graph.outputs if isinstance(o.role, Update)}
    needed = set(graph.output_values)
    for node in reversed(graph.nodes):
        assert node.name in needed, f"{node.name} feeds nothing that is wanted"
        needed.update(node.inputs)
    frozen = {i.role.name for i in graph.inputs if isinstance(i.role, Param)} - updated
    assert updated
    assert frozen


def captured_net(name: str) -> Captured:
    inputs = nets.batches(name, 2, 1)[0][:-1]
    return driver.capture_model(UserModel(nets.make(name), inputs), Config(), driver.Options())
