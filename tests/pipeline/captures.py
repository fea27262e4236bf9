"""The five nets of the tests, captured, with what their schemes train."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import cache

import numpy as np

from pockc.frontend.capture import capture
from pockc.frontend.captured import Captured
from pockc.frontend.optimizers import recipe
from pockc.ir import Buffer, Graph, InputRole, Param
from pockc.passes import run_passes
from pockc.passes.attach_optimizer import Attachment, AttachOptimizer
from pockc.passes.pipeline import Choices
from pockc.passes.prune_backward import PruneBackward
from pockc.passes.selecting import Selection
from pockc.passes.slice_channels import SliceChannels
from tests import nets
from tests.support import random_inputs

NETS = tuple(nets.NETS)
SCHEMES = ("full", "bias", "last", "channels")
# Two input channels and three output channels of one layer each.
PARTS: dict[str, dict[str, Selection]] = {
    "mlp": {"fc1.weight": (0, (1, 4, 5)), "fc2.weight": (1, (0, 1))},
    "mobilenet": {
        "blocks.3.expand.0.weight": (1, (0, 1)),
        "blocks.2.project.0.weight": (0, (1, 4, 5)),
        "blocks.2.depthwise.0.weight": (0, (2, 4, 9)),
    },
    "resnet": {"blocks.2.conv1.weight": (1, (0, 1)), "blocks.1.conv2.weight": (0, (1, 4, 5))},
    "bert": {"layers.1.fc1.weight": (1, (0, 1)), "layers.1.value.weight": (0, (1, 4, 5))},
    "llama": {"layers.1.down.weight": (1, (0, 1)), "layers.0.q_proj.weight": (0, (1, 4, 5))},
}


@cache
def captured(name: str) -> Captured:
    """Return the capture of a net for a batch of two."""
    net = nets.make(name)
    batch = nets.batches(name, 2, 1)[0]
    return capture(net, batch[:-1], target_example=batch[-1])


def trained(name: str, scheme: str) -> tuple[frozenset[str], dict[str, Selection]]:
    """Return the parameters that a scheme trains, and which of them in part."""
    parameters = captured(name).parameters
    match scheme:
        case "full":
            return frozenset(parameters), {}
        case "bias":
            return frozenset(p for p, i in parameters.items() if i.kind == "bias"), {}
        case "last":
            patterns = nets.NETS[name].last
            return frozenset(
                p for p in parameters if any(fnmatchcase(p, pattern) for pattern in patterns)
            ), {}
        case _:
            return frozenset(PARTS[name]), PARTS[name]


def choices(name: str, scheme: str, optimizer: str = "adamw") -> Choices:
    """Return the choices of a scheme, as the driver makes them."""
    names, parts = trained(name, scheme)
    return Choices(
        names,
        tuple(_attachment(name, p, parts.get(p), optimizer) for p in sorted(names)),
        tuple(sorted(parts.items())),
        captured(name).values,
    )


def _attachment(
    name: str, param: str, selection: Selection | None, optimizer: str
) -> Attachment:
    tensor = captured(name).parameters[param].type
    if selection is not None:
        shape = list(tensor.shape)
        shape[selection[0]] = len(selection[1])
        tensor = tensor.with_shape(tuple(shape))
    graph = recipe({"name": optimizer, "lr": 0.1}, tensor).graph
    return Attachment(param, graph, 1.0, selection)


def reference(name: str, of: Choices) -> Graph:
    """Return the training step by the four passes that define what it means."""
    passes = (
        PruneBackward(of.trainable),
        SliceChannels(of.selections),
        AttachOptimizer(of.attachments),
    )
    return run_passes(captured(name).train, passes)


def given(
    name: str, graph: Graph, changed: Collection[str] = ()
) -> dict[InputRole, np.ndarray]:
    """Return the net's own values, one of its batches, and random optimizer state.

    What is trained has other values than at compile time: a step must read it, not remember it.
    """
    net = captured(name)
    arrays = random_inputs(graph, below=5)
    for role in arrays:
        if isinstance(role, (Param, Buffer)):
            factor = 1.25 if role.name in changed else 1.0
            arrays[role] = net.values[role.name] * np.float32(factor)
        elif role.keyword == "opt_state":
            # Second moments are never negative.
            arrays[role] = np.abs(arrays[role])
    batch = nets.batches(name, 2, 1)[0]
    specs = (*net.inputs, *net.targets)
    values = {s.name: t.numpy() for s, t in zip(specs, batch, strict=True)}
    for role in arrays:
        if role.keyword == "batch":
            arrays[role] = values[getattr(role, "name")]  # noqa: B009  a Batch
    return arrays


def parameters_read(graph: Graph) -> set[str]:
    """Return the parameters that some node of a graph reads."""
    return {
        i.role.name for i in graph.inputs if isinstance(i.role, Param) and graph.users[i.name]
    }
