"""What a scheme saves: the costs of two training graphs side by side, as data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pockc.ir.graph import Graph, Node
from pockc.ir.phases import forward_end, forward_nodes
from pockc.ir.roles import OptState
from pockc.ir.views import is_view
from pockc.ops import OpKind, get
from pockc.ops.base import flops_of
from pockc.scheme.facts import Parameters
from pockc.scheme.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training step of a graph costs.

    Attributes:
        trained_parameters: Elements that change.
        trained_tensors: Tensors that change, in whole or in part.
        saved_activation_bytes: What the forward pass keeps for the backward pass, the batch
            itself aside.
        optimizer_state_bytes: What the optimizer keeps between steps.
        forward_multiply_adds: Of matrix products and convolutions that the loss needs.
        backward_multiply_adds: Of all others.
    """

    trained_parameters: int
    trained_tensors: int
    saved_activation_bytes: int
    optimizer_state_bytes: int
    forward_multiply_adds: int
    backward_multiply_adds: int


@dataclass(frozen=True, slots=True)
class Saving:
    """One line of the comparison with full update."""

    what: str
    unit: str
    sparse: int
    full: int

    @property
    def share(self) -> float:
        """The sparse figure as a part of the full one; 1 if that is 0."""
        return self.sparse / self.full if self.full else 1.0


def measure(graph: Graph, scheme: Scheme, parameters: Parameters) -> Cost:
    """Return the cost of a training graph that was pruned for a scheme.

    Args:
        graph: In the order in which it runs; with its optimizer for `optimizer_state_bytes`.
        scheme: What it trains.
        parameters: What could be trained.
    """
    forward = forward_nodes(graph)
    arithmetic = {True: 0, False: 0}
    for node in graph.nodes:
        arithmetic[node.name in forward] += multiply_adds(graph, node)
    return Cost(
        trained_elements(scheme, parameters),
        len(scheme.trained),
        saved_activation_bytes(graph),
        sum(i.type.nbytes for i in graph.inputs if isinstance(i.role, OptState)),
        arithmetic[True],
        arithmetic[False],
    )


def trained_elements(scheme: Scheme, parameters: Parameters) -> int:
    """Return the number of elements that a step changes."""
    return sum(
        math.prod(how.shape(parameters[name].type.shape))
        for name, how in scheme.trained.items()
    )


def multiply_adds(graph: Graph, node: Node) -> int:
    """Return the multiply-adds of matrix products and convolutions in a node."""
    if node.op == "fused":
        body: Graph = node.attrs["body"]
        return sum(multiply_adds(body, n) for n in body.nodes)
    return flops_of(graph, node) // 2 if get(node.op).kind is OpKind.CONTRACTION else 0


def saved_activation_bytes(graph: Graph) -> int:
    """Return the bytes made before the backward pass begins and read after that.

    Views are no bytes of their own. Parameters and the batch are there anyway and not counted.
    """
    turn = forward_end(graph)
    if turn is None:
        return 0
    base = {i.name: i.name for i in graph.inputs}
    made_early: dict[str, int] = {}
    for node in graph.nodes[: turn + 1]:
        shares = is_view(graph, node)
        base[node.name] = base[node.inputs[0]] if shares else node.name
        if not shares and node.op != "literal":
            made_early[node.name] = node.type.nbytes
    read_late = {base[v] for v in _reads(graph, turn) if v in base}
    return sum(size for name, size in made_early.items() if name in read_late)


def _reads(graph: Graph, turn: int) -> Iterator[str]:
    for node in graph.nodes[turn + 1 :]:
        yield from node.inputs


def savings(sparse: Cost, full: Cost) -> tuple[Saving, ...]:
    """Return the comparison of a scheme with full update, line by line."""
    lines = (
        ("trained parameters", "", "trained_parameters"),
        ("saved activations", "bytes", "saved_activation_bytes"),
        ("optimizer state", "bytes", "optimizer_state_bytes"),
        ("backward multiply-adds", "", "backward_multiply_adds"),
        ("forward multiply-adds", "", "forward_multiply_adds"),
    )
    return tuple(
        Saving(what, unit, getattr(sparse, field), getattr(full, field))
        for what, unit, field in lines
    )


def scheme_data(scheme: Scheme, parameters: Parameters) -> list[dict[str, Any]]:
    """Return the trained tensors as JSON values, in the model's order."""
    rows = []
    for name, how in scheme.trained.items():
        shape = parameters[name].type.shape
        axis, indices = (None, ()) if how.selection is None else how.selection
        rows.append(
            {
                "name": name,
                "kind": parameters[name].kind,
                "shape": list(shape),
                "trained": math.prod(how.shape(shape)),
                "axis": axis,
                "channels": len(indices) if axis is not None else None,
                "lr_scale": how.lr_scale,
                "weight_decay": how.weight_decay,
                "because": how.because,
            }
        )
    return rows


def savings_data(sparse: Cost, full: Cost) -> list[Mapping[str, Any]]:
    """Return `savings` as JSON values."""
    return [asdict(line) for line in savings(sparse, full)]
