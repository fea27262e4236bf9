"""Runs what the frontend captured through the interpreter, beside PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pockc import interp
from pockc.errors import UserError
from pockc.frontend.captured import Captured
from pockc.ir import (
    Batch,
    Buffer,
    DType,
    Graph,
    InputRole,
    Loss,
    OutputRole,
    Param,
    Prediction,
    Scalar,
)
from tests.support import close
from tests.tolerances import tolerance

Arrays = Mapping[str, np.ndarray]


def run(
    graph: Graph,
    captured: Captured,
    batch: Sequence[Tensor] = (),
    values: Arrays | None = None,
    seed: int = 0,
) -> dict[OutputRole, np.ndarray]:
    """Return what a captured graph computes for a batch: inputs in order, then targets."""
    specs = [*captured.inputs, *captured.targets]
    given: dict[InputRole, np.ndarray] = {
        Batch(s.name): t.detach().numpy() for s, t in zip(specs, batch, strict=False)
    }
    for name, array in (values or captured.values).items():
        given[Param(name)] = given[Buffer(name)] = array
    given[Scalar("seed")] = np.array(seed, np.int64)
    return interp.run(graph, {i.role: given[i.role] for i in graph.inputs})


def as_double(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def agree(actual: np.ndarray, expected: Tensor, kind: str = "eager") -> None:
    """Assert that an array is what PyTorch computed, by the table."""
    array = expected.detach().numpy()
    close(actual, array, tolerance(DType.of(array.dtype), kind))


def problem_text(call: Callable[[], object]) -> str:
    """Return the whole message of the error that a call ends with."""
    try:
        call()
    except UserError as error:
        return str(error)
    raise AssertionError("no error was raised")


@dataclass(frozen=True)
class Case:
    """An operation to differentiate.

    Attributes:
        name: What a failure names.
        function: Takes tensors of the shapes, returns a tensor.
        shapes: One per operand.
        positive: Draw operands above zero.
    """

    name: str
    function: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    positive: bool = False


def case(
    name: str, function: Callable[..., Tensor], *shapes: tuple[int, ...], positive: bool = False
) -> Case:
    return Case(name, function, shapes, positive)


class Family(nn.Module):
    """Every case on parameters of its own; returns a sum over all results, and each."""

    def __init__(self, cases: Sequence[Case], seed: int = 0) -> None:
        super().__init__()
        self.cases = tuple(cases)
        g = torch.Generator().manual_seed(seed)
        self.operands = nn.ParameterDict()
        for i, c in enumerate(self.cases):
            for k, shape in enumerate(c.shapes):
                drawn = torch.randn(shape, generator=g, dtype=torch.float64)
                self.operands[f"{i}_{k}"] = drawn.abs() + 0.2 if c.positive else drawn

    def forward(self, scale: Tensor) -> tuple[Tensor, ...]:
        results = [
            c.function(*(self.operands[f"{i}_{k}"] for k in range(len(c.shapes)))) * scale
            for i, c in enumerate(self.cases)
        ]
        total = torch.stack([weighted(r) for r in results]).sum()
        return total, *results


def weighted(x: Tensor) -> Tensor:
    """Return a sum in which no two elements count alike."""
    weight = torch.cos(torch.arange(x.numel(), dtype=x.dtype) * 0.7 + 0.3)
    return (x.reshape(-1) * weight).sum()


def loss_of(captured: Captured, values: Arrays, batch: Sequence[Tensor]) -> float:
    return float(run(captured.train, captured, batch, values)[Loss()])


def predictions(outputs: Mapping[OutputRole, np.ndarray]) -> list[np.ndarray]:
    count = sum(isinstance(role, Prediction) for role in outputs)
    return [outputs[Prediction(str(i))] for i in range(count)]
