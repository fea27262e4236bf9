"""Which integers the inputs of a captured model may hold: labels and indices of embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from pockc.frontend.captured import Captured
from pockc.ir import Batch, Graph, Input
from pockc.runtime.manifest import ValueRange

_TRANSPARENT = ("reshape", "permute", "broadcast_to", "slice")


def input_ranges(captured: Captured) -> dict[str, ValueRange]:
    """Return what is legal for each input of integers of which that is known."""
    ranges = {
        name: ValueRange(0, size - 1, "token id") for name, size in _indices(captured.train)
    }
    if captured.labels is not None:
        classes, ignore = captured.labels.num_classes, captured.labels.ignore_index
        for target in captured.targets:
            if target.dtype.is_integer:
                ranges[target.name] = ValueRange(0, classes - 1, "label", ignore)
    return ranges


def _indices(graph: Graph) -> Iterator[tuple[str, int]]:
    """Yield the inputs that `take` reads as they are, and how many rows there are to take."""
    for node in graph.nodes:
        if node.op != "take":
            continue
        given = _origin(graph, node.inputs[1])
        if given is not None and isinstance(given.role, Batch):
            yield given.role.name, graph.type_of(node.inputs[0]).shape[node.attrs["axis"]]


def _origin(graph: Graph, value: str) -> Input | None:
    """Return the input whose elements a value holds, None if they were computed."""
    found = graph.defs[value]
    while not isinstance(found, Input):
        if found.op not in _TRANSPARENT:
            return None
        found = graph.defs[found.inputs[0]]
    return found
