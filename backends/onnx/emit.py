"""From the finished graphs of an artifact to its ONNX models."""

from __future__ import annotations

from collections.abc import Mapping

from pockc.backends.base import Job
from pockc.backends.onnx import opsets
from pockc.backends.onnx.in_place import in_place
from pockc.backends.onnx.model import Draft, draft, finish
from pockc.backends.onnx.weights import write_weights
from pockc.ir.graph import Graph
from pockc.ir.roles import Buffer, OptState, Param, state_written
from pockc.plan.product import Made, Product
from pockc.plan.types import StateKey, StateSlot
from pockc.runtime.manifest import ANY, FROZEN_FILE, ONNX, Machine


def emit(graphs: Mapping[str, Graph], job: Job, producer: str = "pockc") -> Product:
    """Write a model for each entry, and one file for their large constants."""
    opset = opsets.choose(job.opset)
    state = _state(graphs)
    keys = frozenset(h.key for h in state)
    drafts: dict[str, Draft] = {}
    for number, (name, graph) in enumerate(graphs.items()):
        job.progress("models", number, len(graphs))
        drafts[name] = draft(graph, keys, job.values, opset)
    files = {FROZEN_FILE: job.folder / FROZEN_FILE}
    places = write_weights(
        files[FROZEN_FILE],
        (d.builder.weights for d in drafts.values()),
        {n: v for n, v in job.values.items() if keys.isdisjoint((Param(n), Buffer(n)))},
    )
    counts = {}
    for name, drafted in drafts.items():
        model = finish(drafted, places, producer)
        path = job.folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        files[path.name] = path
        counts[name] = len(model.graph.node)
    job.progress("models", len(graphs), len(graphs))
    return Product(
        program=ONNX,
        files=files,
        machine=Machine("onnx", ANY, ANY),
        state=state,
        entries=tuple(
            Made(
                name,
                drafts[name].types(),
                [(o.role, graph.type_of(o.value)) for o in graph.outputs],
                counts[name],
                tuple(in_place(graph)),
            )
            for name, graph in graphs.items()
        ),
        memory={
            "state_bytes": sum(h.type.nbytes for h in state),
            "frozen_bytes": 0,
            "arena_bytes": 0,
        },
    )


def _state(graphs: Mapping[str, Graph]) -> tuple[StateSlot, ...]:
    """Return what some entry changes; everything else is constant."""
    written = {state_written(o.role) for g in graphs.values() for o in g.outputs}
    found: dict[StateKey, StateSlot] = {}
    for graph in graphs.values():
        for i in graph.inputs:
            changes = isinstance(i.role, OptState) or i.role in written
            if changes and isinstance(i.role, Param | Buffer | OptState):
                found.setdefault(i.role, StateSlot(i.role, i.type, 0))
    return tuple(found.values())
