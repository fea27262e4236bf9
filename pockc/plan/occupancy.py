"""Which bytes of a plan are taken when, by what: the data of memory pictures.

It is kept in the artifact, so that a picture needs neither the model nor the machine that the
artifact is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pockc.ir.graph import Node, Source
from pockc.ir.phases import step_phases
from pockc.plan.liveness import Block, blocks_of
from pockc.plan.memory import StateMemory, category_of, saved_blocks, source_of, state_memory
from pockc.plan.program import Program, program_of
from pockc.plan.types import Entry, EntryPlan, Place, Plan

VERSION = 1


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One kernel call of an entry.

    Attributes:
        kernel: The C symbol.
        node: What it computes.
        op: The node's op; of a fused node all of them.
        phase: forward, backward or update; "" in an entry that trains nothing.
        module: The user's module that it comes from, "" if none is known.
        source: The user's line, "" likewise.
    """

    kernel: str
    node: str
    op: str
    phase: str
    module: str
    source: str


@dataclass(frozen=True, slots=True)
class Occupied:
    """Bytes of the arena that hold one value for a while.

    Attributes:
        value: The value, or the node whose workspace it is.
        category: One of `CATEGORIES`.
        nbytes: Its size.
        offset_bytes: Where it lies in the arena.
        start: When it is first needed: 0 is when the inputs are filled, i + 1 is call i.
        end: When it is last needed; one more than the last call is when outputs are read.
        shape: Of the value, as `f32[8,32,1,50]`; "" for a workspace.
        module: The user's module that it comes from, "" if none is known.
        source: The user's line, "" likewise.
    """

    value: str
    category: str
    nbytes: int
    offset_bytes: int
    start: int
    end: int
    shape: str
    module: str
    source: str


@dataclass(frozen=True, slots=True)
class EntryOccupancy:
    """The arena of one entry over its calls."""

    name: str
    arena_bytes: int
    lower_bound_bytes: int
    calls: tuple[PlannedCall, ...]
    blocks: tuple[Occupied, ...]

    @property
    def times(self) -> int:
        """Number of times: inputs, every call, outputs."""
        return len(self.calls) + 2

    def alive(self, time: int) -> list[Occupied]:
        """Return what lies in the arena at a time, the largest first."""
        found = [b for b in self.blocks if b.start <= time <= b.end]
        return sorted(found, key=lambda b: (-b.nbytes, b.value))

    def timeline(self) -> list[int]:
        """Return the bytes in use at each time; the most is `lower_bound_bytes`."""
        change = [0] * (self.times + 1)
        for block in self.blocks:
            change[block.start] += block.nbytes
            change[block.end + 1] -= block.nbytes
        total, line = 0, []
        for step in change[:-1]:
            total += step
            line.append(total)
        return line

    def peak(self) -> int:
        """Return the first time at which most bytes are in use."""
        line = self.timeline()
        return line.index(max(line))


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The memory of an artifact."""

    state: StateMemory
    entries: tuple[EntryOccupancy, ...]

    def entry(self, name: str) -> EntryOccupancy | None:
        """Return an entry by name, None if there is none."""
        return next((e for e in self.entries if e.name == name), None)


def occupancy(entries: Sequence[Entry], plan: Plan) -> Occupancy:
    """Return what lies where and when in a plan for these entries."""
    found = tuple(
        _entry(program_of(e), planned) for e, planned in zip(entries, plan.entries, strict=True)
    )
    return Occupancy(state_memory(entries, plan), found)


def _entry(program: Program, planned: EntryPlan) -> EntryOccupancy:
    blocks = blocks_of(program)
    saved = saved_blocks(program, blocks)
    places = _places(program, planned)
    return EntryOccupancy(
        planned.name,
        planned.arena_bytes,
        planned.lower_bound_bytes,
        tuple(_calls(program)),
        tuple(
            _occupied(program, b, places[b.key], category_of(program, b, saved)) for b in blocks
        ),
    )


def _places(program: Program, planned: EntryPlan) -> dict[str | tuple[str, int], Place]:
    """Return where each block lies, as the arguments of the calls tell it."""
    graph, ports = program.entry.graph, {p.role: p.place for p in planned.inputs}
    found: dict[str | tuple[str, int], Place] = {
        program.root[i.name]: ports[i.role] for i in graph.inputs if i.role in ports
    }
    for call, step in zip(program.instructions, planned.steps, strict=True):
        values = call.reads if call.in_place else (*call.reads, call.result)
        for value, place in zip(values, step.args, strict=False):
            found[program.root[value]] = place
        for number, place in enumerate(step.args[len(values) :]):
            found[call.node, number] = place
    return found


def _calls(program: Program) -> Iterator[PlannedCall]:
    graph = program.entry.graph
    phase = step_phases(graph)
    for call in program.instructions:
        made = graph.defs.get(call.node)
        node = made if isinstance(made, Node) else None
        where = None if node is None else node.source
        copied = call.kernel not in {c.symbol for c in program.entry.calls.values()}
        yield PlannedCall(
            call.kernel,
            call.node,
            "copy" if copied or node is None else _ops(node),
            "update" if node is None else phase(node),
            "" if where is None else where.module,
            _line(where),
        )


def _ops(node: Node) -> str:
    body = node.attrs.get("body")
    return node.op if body is None else "+".join(n.op for n in body.nodes)


def _line(source: Source | None) -> str:
    return "" if source is None else str(source)


def _occupied(program: Program, block: Block, place: Place, category: str) -> Occupied:
    value = block.key if isinstance(block.key, str) else block.key[0]
    made = program.entry.graph.defs.get(value)
    source = source_of(program, value)
    named = isinstance(block.key, str) and made is not None
    return Occupied(
        value,
        category,
        block.nbytes,
        place.offset_bytes,
        block.start,
        block.end,
        str(made.type) if named and made is not None else "",
        "" if source is None else source.module,
        _line(source),
    )


def occupancy_text(memory: Occupancy) -> str:
    """Return JSON text that `read_occupancy` reads; equal plans give equal text."""
    return json.dumps({"version": VERSION, **asdict(memory)}, separators=(",", ":")) + "\n"


def read_occupancy(text: str) -> Occupancy:
    """Return what `occupancy_text` wrote.

    Raises:
        ValueError: It is something else, or of another version.
    """
    data: Mapping[str, Any] = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    try:
        entries = tuple(
            EntryOccupancy(
                e["name"],
                e["arena_bytes"],
                e["lower_bound_bytes"],
                tuple(PlannedCall(**c) for c in e["calls"]),
                tuple(Occupied(**b) for b in e["blocks"]),
            )
            for e in data["entries"]
        )
        return Occupancy(StateMemory(**data["state"]), entries)
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks or has too much: {error}") from error
