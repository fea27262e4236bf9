"""What a scheme leaves of the arithmetic, by formulas written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pockc import backends, driver
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.passes import pipeline
from pockc.scheme import Config, report, resolve
from tests import nets

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

N = 8
ALL = [{"match": "*", "train": "all"}]
BIAS = [{"match": "*", "train": "bias"}]


def captured(name: str) -> Captured:
    inputs = nets.batches(name, N, 1)[0][:-1]
    return driver.capture_model(UserModel(nets.make(name), inputs), Config(), driver.Options())


def cost(traced: Captured, update: Sequence[Mapping[str, Any]]) -> report.Cost:
    given = {"update": list(update)}
    config = driver.read_config(given, {"optimizer": {"name": "sgd", "lr": 0.1}})
    scheme = resolve(config, traced.parameters, traced.values, traced.modules, traced.aliases)
    recipes = driver._recipes(traced, scheme, config)
    choices = driver._choices(traced, scheme, config, recipes, backends.get("tvm"))
    graphs = pipeline.compile_entries({"train": traced.train}, choices)
    return report.measure(graphs["train_step"], scheme, traced.parameters)


@pytest.fixture(scope="module")
def mlp() -> Captured:
    return captured("mlp")


@pytest.fixture(scope="module")
def resnet() -> Captured:
    return captured("resnet")


# One product per layer and direction: 12 -> 20 -> 20 -> 5.
FC1, FC2, HEAD = N * 12 * 20, N * 20 * 20, N * 20 * 5


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # All weights; errors go back to the second and the first layer, none to the input.
        (ALL, (FC1 + FC2 + HEAD) + (HEAD + FC2)),
        # The same errors, and no weight's gradient.
        (BIAS, HEAD + FC2),
        ([{"match": "head.*", "train": "all"}], HEAD),
        ([{"match": "head.bias", "train": "all"}], 0),
        # The error goes back through the classifier and stops there.
        ([{"match": "fc2", "train": "bias"}], HEAD),
        # 7 of the 20 rows of fc1's weight: only they need an error; half of fc2's columns.
        (nets.NETS["mlp"].channels, N * 12 * 7 + FC2 // 2 + HEAD + N * 20 * 7),
    ],
)
def test_a_perceptron_computes_what_the_formula_says(
    mlp: Captured, update: list[dict[str, Any]], expected: int
) -> None:
    found = cost(mlp, update)
    assert found.forward_multiply_adds == FC1 + FC2 + HEAD
    assert found.backward_multiply_adds == expected


def conv(c: int, k: int, size: int, out: int) -> int:
    """Multiply-adds of a convolution with square filters and images."""
    return N * k * out**2 * c * size**2


# 24 x 24 images; the stem's stride and the pooling leave 6 x 6, the blocks 6, 3 and 2.
STEM = conv(3, 8, 7, 12)
A1, A2 = conv(8, 8, 3, 6), conv(8, 8, 3, 6)
B1, B2, B_DOWN = conv(8, 16, 3, 3), conv(16, 16, 3, 3), conv(8, 16, 1, 3)
C1, C2, C_DOWN = conv(16, 24, 3, 2), conv(24, 24, 3, 2), conv(16, 24, 1, 2)
FC = N * 24 * 5
BLOCKS = A1 + A2 + B1 + B2 + B_DOWN + C1 + C2 + C_DOWN


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # Every filter's gradient, and every error but the images'.
        (ALL, (STEM + BLOCKS + FC) + (BLOCKS + FC)),
        # The stem has a bias: all of those errors.
        (BIAS, BLOCKS + FC),
        ([{"match": "fc.*", "train": "all"}], FC),
        # The last block and the classifier: inside the block one error, none before it.
        ([{"match": m, "train": "all"} for m in nets.NETS["resnet"].last],
         (C1 + C2 + C_DOWN + FC) + (C2 + FC)),
        # 4 of 16 filters need the error of 4 channels from what reads them.
        ([{"match": "blocks.1.conv2", "train": "weight",
           "channels": {"axis": "out", "by": "first", "count": 4}}],
         B2 // 4 + (C1 + C_DOWN) // 4 + C2 + FC),
    ],
)  # fmt: skip
def test_a_residual_net_computes_what_the_formula_says(
    resnet: Captured, update: list[dict[str, Any]], expected: int
) -> None:
    found = cost(resnet, update)
    assert found.forward_multiply_adds == STEM + BLOCKS + FC
    assert found.backward_multiply_adds == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(nets.NETS))
def test_training_less_never_costs_more(name: str) -> None:
    traced = captured(name)
    full = cost(traced, ALL)
    last = cost(traced, [{"match": m, "train": "all"} for m in nets.NETS[name].last])
    channels = cost(traced, nets.NETS[name].channels)
    for part in (last, channels):
        assert part.forward_multiply_adds == full.forward_multiply_adds
        assert part.backward_multiply_adds < full.backward_multiply_adds
    # Channels of a saved value are kept beside it where a mask needs all of it: not compared.
    assert last.saved_activation_bytes < full.saved_activation_bytes
