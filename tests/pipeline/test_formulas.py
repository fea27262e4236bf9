"""Pruning is real: the arithmetic that is left is what a formula on the layers says.

A layer of f multiply-adds forward has as many for the gradient of its weight, in the part that
is trained, and as many again for the gradient of its input, if anything before it is trained.
If that is but some output channels of the layer before, the gradient is made of those only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pockc import ops
from pockc.ir import Graph, Node
from pockc.ops import OpKind
from pockc.ops.base import flops_of
from pockc.passes import pipeline
from tests import nets
from tests.pipeline.captures import SCHEMES, captured, choices, trained

pytestmark = pytest.mark.needs_torch


@dataclass(frozen=True)
class Layer:
    name: str
    multiply_adds: int
    channels: tuple[int, ...]


def layers(name: str) -> list[Layer]:
    """Return the layers of a net in the order in which they run, for a batch of two."""
    net = nets.make(name)
    found: list[Layer] = []

    def note(label: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, _: tuple[Tensor, ...], result: Tensor) -> None:
            weight = module.get_parameter("weight")
            per_output = weight[0].numel()
            found.append(Layer(label, result.numel() * per_output, tuple(weight.shape)))

        return hook

    for label, module in net.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(note(label))
    with torch.no_grad():
        net.eval()(*nets.batches(name, 2, 1)[0][:-1])
    return found


def expected(name: str, scheme: str) -> int:
    names, parts = trained(name, scheme)
    order = [p.rpartition(".")[0] for p in captured(name).parameters]
    total = 0
    behind = (0, 1)  # the part of this layer's input whose gradient is needed
    for layer in layers(name):
        before = {p for p in names if p.rpartition(".")[0] in order[: order.index(layer.name)]}
        weight = f"{layer.name}.weight"
        total += layer.multiply_adds
        if before:
            some, of = behind if len(before) == 1 else (1, 1)
            total += layer.multiply_adds * some // of
        if weight in names:
            axis, indices = parts.get(weight, (0, range(layer.channels[0])))
            total += layer.multiply_adds * len(indices) // layer.channels[axis]
            behind = (len(indices), layer.channels[0]) if axis == 0 else (1, 1)
        else:
            behind = (1, 1)
    return total


def contractions(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    for node in graph.nodes:
        if node.op == "fused":
            yield from contractions(node.attrs["body"])
        elif ops.get(node.op).kind is OpKind.CONTRACTION:
            yield graph, node


def found(name: str, scheme: str) -> int:
    graphs = {"train": captured(name).train}
    step = pipeline.compile_entries(graphs, choices(name, scheme))["train_step"]
    return sum(flops_of(graph, node) for graph, node in contractions(step)) // 2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["mlp", "mobilenet"])
def test_the_multiply_adds_are_those_of_the_formula(name: str, scheme: str) -> None:
    assert found(name, scheme) == expected(name, scheme)


def test_the_formula_tells_schemes_apart() -> None:
    assert len({expected("mobilenet", scheme) for scheme in SCHEMES}) == len(SCHEMES)
