"""The memory plan: one state shared by all entries, and one arena that they use in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pockc.errors import InternalError, Problem
from pockc.ir.attrs import Literal
from pockc.ir.roles import Buffer, InputRole, OptState, Param, Scalar, state_written
from pockc.ir.types import TensorType
from pockc.plan.arena import aligned, place
from pockc.plan.gathered import gathered
from pockc.plan.liveness import blocks_of, lower_bound_bytes
from pockc.plan.program import Program, constant_of, program_of, target_of
from pockc.plan.types import (
    ALIGN_BYTES,
    SCALARS,
    Constant,
    Entry,
    EntryPlan,
    InputPort,
    OutputPort,
    Place,
    Plan,
    Space,
    StateKey,
    StateLayout,
    StateSlot,
    Step,
)


def make_plan(entries: Sequence[Entry]) -> Plan:
    """Return where everything lies. Equal entries give equal plans.

    Args:
        entries: Their graphs are in the order in which they will run.

    Raises:
        InternalError: A node that nothing computes, or entries that disagree about the type of
            a tensor of the state.
    """
    state = _state_layout(entries)
    slots: dict[StateKey, Place] = {s.key: s.place for s in state.slots}
    plans = tuple(_plan_entry(program_of(e), slots) for e in entries)
    arena = max((p.arena_bytes for p in plans), default=0)
    return Plan(state, plans, arena, ALIGN_BYTES * len(SCALARS))


def _state_layout(entries: Sequence[Entry]) -> StateLayout:
    """Lay the state out in the order in which the entries name its tensors.

    What a step writes, and all that belongs to the optimizer, lies in STATE: it is what a
    checkpoint holds. The rest is FROZEN, the literals behind the model's own tensors. What no
    entry reads, as a filter whose factor was folded into a literal, has no place.
    """
    types: dict[StateKey, TensorType] = {}
    literals: dict[Constant, Literal] = {}
    problems = []
    unread = unread_state(entries)
    for entry in entries:
        for source in entry.graph.inputs:
            if not isinstance(source.role, Param | Buffer | OptState) or source.role in unread:
                continue
            known = types.setdefault(source.role, source.type)
            if known != source.type:
                what = f"{source.role} is {source.type} in '{entry.name}' and {known} before"
                problems.append(Problem("plan-state-type", what))
    for constant, tensor, literal in (c for e in entries for c in _constants(e)):
        types.setdefault(constant, tensor)
        literals.setdefault(constant, literal)
    if problems:
        raise InternalError(*problems)
    written = {state_written(o.role) for e in entries for o in e.graph.outputs}
    tables = _tables(entries)
    slots, ends = [], {Space.STATE: 0, Space.FROZEN: 0}
    for key, tensor in types.items():
        content = literals.get(key) if isinstance(key, Constant) else None
        lasting = isinstance(key, OptState) or key in written
        space = Space.STATE if lasting else Space.FROZEN
        by_rows = key in tables and tensor.layout is None
        slots.append(StateSlot(key, tensor, ends[space], content, space, by_rows))
        ends[space] += aligned(tensor.nbytes)
    return StateLayout(tuple(slots), ends[Space.STATE], ends[Space.FROZEN])


def unread_state(entries: Sequence[Entry]) -> frozenset[InputRole]:
    """Return the parameters and buffers that no entry reads or writes."""
    used: set[object] = {state_written(o.role) for e in entries for o in e.graph.outputs}
    for entry in entries:
        reads = {i for n in entry.graph.nodes for i in n.inputs}
        reads |= {o.value for o in entry.graph.outputs}
        used |= {i.role for i in entry.graph.inputs if i.name in reads}
    roles = {i.role for e in entries for i in e.graph.inputs}
    return frozenset(r for r in roles if isinstance(r, Param | Buffer) and r not in used)


def _tables(entries: Sequence[Entry]) -> frozenset[InputRole]:
    """Return what is read by rows, where an index says, in every entry that reads it."""
    by_rows: dict[InputRole, bool] = {}
    for entry in entries:
        found = gathered(entry.graph)
        reads = {i for n in entry.graph.nodes for i in n.inputs}
        for source in entry.graph.inputs:
            if source.name in reads:
                before = by_rows.get(source.role, True)
                by_rows[source.role] = before and source.name in found
    return frozenset(role for role, only in by_rows.items() if only)


def _constants(entry: Entry) -> list[tuple[Constant, TensorType, Literal]]:
    return [
        (constant_of(n), n.type, n.attrs["value"])
        for n in entry.graph.nodes
        if n.op == "literal" and n.name not in entry.calls
    ]


def _plan_entry(program: Program, slots: Mapping[StateKey, Place]) -> EntryPlan:
    blocks = blocks_of(program)
    placement = place(blocks)
    places: dict[str | tuple[str, int], Place] = {
        block.key: Place(Space.ARENA, offset, block.nbytes)
        for block, offset in zip(blocks, placement.offsets, strict=True)
    }
    for root, home in program.home.items():
        if isinstance(home, Scalar):
            places[root] = _scalar(home, program.nbytes[root])
        elif home in slots:
            places[root] = slots[home]
    steps = []
    for call in program.instructions:
        values = call.reads if call.in_place else (*call.reads, call.result)
        args = [places[program.root[v]] for v in values]
        args += [places[call.node, i] for i in range(len(call.workspace_bytes))]
        steps.append(Step(call.kernel, tuple(args), call.node))
    return EntryPlan(
        program.entry.name,
        tuple(steps),
        *_ports(program, places),
        placement.nbytes,
        lower_bound_bytes(blocks),
    )


def _ports(
    program: Program, places: Mapping[str | tuple[str, int], Place]
) -> tuple[tuple[InputPort, ...], tuple[OutputPort, ...]]:
    graph = program.entry.graph
    inputs = tuple(
        InputPort(i.role, i.type, places[i.name]) for i in graph.inputs if i.name in places
    )
    outputs = []
    for output in graph.outputs:
        target = target_of(graph, output.role)
        value = program.results[output.role] if target is None else target
        where = places[program.root[value]]
        outputs.append(OutputPort(output.role, graph.type_of(output.value), where))
    return inputs, tuple(outputs)


def _scalar(role: Scalar, nbytes: int) -> Place:
    if role.name not in SCALARS:
        what = f"the runtime gives no scalar '{role.name}'; it knows: {', '.join(SCALARS)}"
        raise InternalError(Problem("plan-scalar", what))
    return Place(Space.SCALAR, SCALARS.index(role.name) * ALIGN_BYTES, nbytes)
