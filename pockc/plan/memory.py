"""What the memory of a plan is used for, as data for `inspect` and the manifest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pockc.ir.graph import Node, Source
from pockc.ir.phases import forward_end
from pockc.ir.roles import Batch, Buffer, OptState, Param, Update
from pockc.plan.liveness import Block, blocks_of, live_bytes
from pockc.plan.program import Program, program_of
from pockc.plan.types import Entry, Plan

CATEGORIES = ("inputs", "saved_activations", "workspace", "temporaries")
"""What the arena holds, in this order.

Inputs are the batch. Saved activations are made by the forward pass and read by the backward
pass. Workspace is scratch of one kernel. Temporaries are everything else, gradients included.
"""


@dataclass(frozen=True, slots=True)
class StateMemory:
    """Bytes of what lasts, by purpose; alignment is in the last two only.

    Attributes:
        nbytes: Private memory: what steps write.
        frozen_nbytes: Mapped from a file: what they only read.
    """

    trained_parameters: int
    frozen_parameters: int
    buffers: int
    optimizer: int
    constants: int
    nbytes: int
    frozen_nbytes: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A value that the forward pass keeps for the backward pass."""

    value: str
    nbytes: int
    source: Source | None


@dataclass(frozen=True, slots=True)
class EntryMemory:
    """The arena of one entry.

    Attributes:
        name: The entry.
        arena_bytes: What it takes.
        lower_bound_bytes: What it takes at least.
        peak: Bytes of each category at the moment of most bytes alive.
        peak_node: What runs at that moment, "" while inputs or outputs are copied.
        peak_source: The user's line that it comes from.
        saved: The saved activations, the largest first.
        saved_bytes: Their sum.
        timeline: Bytes alive at each time: inputs, every kernel, outputs.
    """

    name: str
    arena_bytes: int
    lower_bound_bytes: int
    peak: Mapping[str, int]
    peak_node: str
    peak_source: Source | None
    saved: tuple[Saved, ...]
    saved_bytes: int
    timeline: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The memory of a plan."""

    state: StateMemory
    entries: tuple[EntryMemory, ...]


def memory_report(entries: Sequence[Entry], plan: Plan) -> MemoryReport:
    """Return what the memory of a plan for these entries is used for."""
    planned = {e.name: e for e in plan.entries}
    found = []
    for entry in entries:
        arena = planned[entry.name].arena_bytes
        bound = planned[entry.name].lower_bound_bytes
        found.append(_entry_memory(program_of(entry), arena, bound))
    return MemoryReport(state_memory(entries, plan), tuple(found))


def state_memory(entries: Sequence[Entry], plan: Plan) -> StateMemory:
    """Return what the state of a plan is used for."""
    trained = {
        o.role.param for e in entries for o in e.graph.outputs if isinstance(o.role, Update)
    }
    sums = {"trained": 0, "frozen": 0, "buffer": 0, "optimizer": 0, "constant": 0}
    for slot in plan.state.slots:
        match slot.key:
            case Param(name):
                kind = "trained" if name in trained else "frozen"
            case Buffer():
                kind = "buffer"
            case OptState():
                kind = "optimizer"
            case _:
                kind = "constant"
        sums[kind] += slot.type.nbytes
    return StateMemory(
        trained_parameters=sums["trained"],
        frozen_parameters=sums["frozen"],
        buffers=sums["buffer"],
        optimizer=sums["optimizer"],
        constants=sums["constant"],
        nbytes=plan.state.nbytes,
        frozen_nbytes=plan.state.frozen_nbytes,
    )


def _entry_memory(program: Program, arena_bytes: int, bound: int) -> EntryMemory:
    blocks = blocks_of(program)
    saved = saved_blocks(program, blocks)
    timeline = live_bytes(blocks)
    peak = int(np.argmax(timeline)) if len(timeline) else 0
    amounts = dict.fromkeys(CATEGORIES, 0)
    for block in blocks:
        if block.start <= peak <= block.end:
            amounts[category_of(program, block, saved)] += block.nbytes
    ran = 1 <= peak <= len(program.instructions)
    node = program.instructions[peak - 1].node if ran else ""
    largest = sorted(saved, key=lambda b: (-b.nbytes, str(b.key)))
    return EntryMemory(
        program.entry.name,
        arena_bytes,
        bound,
        amounts,
        node,
        source_of(program, node),
        tuple(Saved(str(b.key), b.nbytes, source_of(program, str(b.key))) for b in largest),
        sum(b.nbytes for b in saved),
        tuple(int(n) for n in timeline),
    )


def saved_blocks(program: Program, blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks alive both when the forward pass ends and after it, inputs aside."""
    graph = program.entry.graph
    last = forward_end(graph)
    if last is None:
        return []
    forward = {n.name for n in graph.nodes[: last + 1]}
    turn = max(
        (at + 1 for at, c in enumerate(program.instructions) if c.node in forward), default=0
    )
    return [b for b in blocks if 0 < b.start <= turn < b.end]


def category_of(program: Program, block: Block, saved: Sequence[Block]) -> str:
    """Return which of `CATEGORIES` a block is, given the saved ones."""
    if not isinstance(block.key, str):
        return "workspace"
    made = program.entry.graph.defs.get(block.key)
    if made is not None and not isinstance(made, Node) and isinstance(made.role, Batch):
        return "inputs"
    return "saved_activations" if block in saved else "temporaries"


def source_of(program: Program, value: str) -> Source | None:
    """Return the user's line that a value comes from, None if it is not known."""
    made = program.entry.graph.defs.get(value)
    return made.source if isinstance(made, Node) else None


def report_data(report: MemoryReport, shown: int = 12) -> dict[str, Any]:
    """Return a report as JSON values, of each entry the `shown` largest saved values."""
    entries = {}
    for entry in report.entries:
        largest = [
            {"value": s.value, "nbytes": s.nbytes, "source": str(s.source or "")}
            for s in entry.saved[:shown]
        ]
        entries[entry.name] = {
            "arena_bytes": entry.arena_bytes,
            "lower_bound_bytes": entry.lower_bound_bytes,
            "peak": dict(entry.peak),
            "peak_node": entry.peak_node,
            "peak_source": str(entry.peak_source or ""),
            "saved_bytes": entry.saved_bytes,
            "saved_count": len(entry.saved),
            "saved": largest,
            "timeline": _thinned(entry.timeline),
        }
    return {"state": asdict(report.state), "entries": entries}


def _thinned(timeline: Sequence[int], points: int = 120) -> list[int]:
    """Return at most `points` numbers, each the most of its part of the time."""
    if len(timeline) <= points:
        return list(timeline)
    edges = [len(timeline) * i // points for i in range(points + 1)]
    return [max(timeline[a:b]) for a, b in itertools.pairwise(edges)]


def kernel_calls(plan: Plan) -> dict[str, dict[str, int]]:
    """Return for each kernel how often each entry calls it; the most called ones first."""
    calls: dict[str, dict[str, int]] = {}
    for entry in plan.entries:
        for step in entry.steps:
            of_kernel = calls.setdefault(step.kernel, {})
            of_kernel[entry.name] = of_kernel.get(entry.name, 0) + 1
    return dict(sorted(calls.items(), key=lambda kc: (-sum(kc[1].values()), kc[0])))
