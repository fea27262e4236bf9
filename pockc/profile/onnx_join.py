"""What an artifact of ONNX models knows of the operators that ran, and of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pockc.backends.onnx.names import node_path
from pockc.ir import Graph
from pockc.ir.graph import Node
from pockc.ir.phases import step_phases
from pockc.ir.source_text import read_sources
from pockc.profile.model import TRAIN_STEP, HeldMemory, KernelFacts
from pockc.profile.recording import RecordedEntry, Recording
from pockc.runtime.manifest import FROZEN_FILE, Manifest

_MADE_FROM = re.compile(r"^fused ")
"""Before the name of the operator that ends a group which ONNX Runtime has joined."""


@dataclass(frozen=True)
class _Origin:
    node: Node
    phase: str


def onnx_facts(recorded: RecordedEntry, graph: Graph, text: str) -> Iterator[KernelFacts]:
    """Yield what is known of each operator, in order.

    Args:
        recorded: An entry.
        graph: Its final graph.
        text: Of which this is the text, with the user's lines.
    """
    sources = read_sources(text)
    nodes = tuple(replace(n, source=sources.get(n.name)) for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    phase_of = step_phases(graph)
    origins = {node_path(n, phase_of): _Origin(n, phase_of(n)) for n in graph.nodes}
    found = [_origin(name, origins) for name in recorded.nodes]
    # What ONNX Runtime puts in, as copies into another layout, belongs to what follows.
    phases = [o.phase if o else "" for o in found]
    for at in reversed(range(len(phases) - 1)):
        phases[at] = phases[at] or phases[at + 1]
    called = zip(recorded.kernels, recorded.nodes, recorded.work, found, phases, strict=True)
    for op, name, work, origin, phase in called:
        source = None if origin is None else origin.node.source
        yield KernelFacts(
            symbol=op,
            family=op,
            node=name if origin is None else origin.node.name,
            op=op,
            phase="update" if recorded.name != TRAIN_STEP else phase or "forward",
            module="" if source is None else source.module,
            source="" if source is None else str(source),
            kind=op,
            flops=work.flops,
            other_flops=0,
            nbytes=work.nbytes,
        )


def _origin(name: str, origins: Mapping[str, _Origin]) -> _Origin | None:
    """Return where an operator comes from: its name begins with that of a node of the graph.

    What follows is a number, where a node became several operators, or what ONNX Runtime did:
    `forward/fc/matmul_2/MatmulTransposeFusion/`.
    """
    name = _MADE_FROM.sub("", name)
    for end in sorted(_ends(name), reverse=True):
        if name[:end] in origins:
            return origins[name[:end]]
    return None


def _ends(name: str) -> Iterator[int]:
    yield len(name)
    yield from (m.start() for m in re.finditer(r"[/.]|_(?=\D)", name))


def held_memory(recording: Recording, manifest: Manifest) -> HeldMemory:
    """Return what the state takes by the manifest, and what ONNX Runtime said that it took."""
    entries = manifest.entries.values()
    state = {n for e in entries for n in (*e.reads, *e.writes)}
    twice = {n for e in entries for n in e.writes if n not in e.in_place}
    sizes = {n: manifest.tensors[n].nbytes for n in state}
    optimizer = sum(b for n, b in sizes.items() if manifest.tensors[n].kind == "opt_state")
    timeline = next(
        (
            tuple(w.live_bytes for w in e.work)
            for e in recording.entries
            if e.name == TRAIN_STEP
        ),
        (),
    )
    return HeldMemory(
        parameters=sum(sizes.values()) - optimizer,
        optimizer_state=optimizer,
        second_buffers=sum(sizes[n] for n in twice),
        frozen=manifest.files[FROZEN_FILE].nbytes,
        arena=recording.held_bytes,
        peak=max(timeline, default=0),
        timeline=timeline,
    )
