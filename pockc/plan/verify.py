"""Checks a plan by running it on labels: a witness that shares no code with the planner.

Memory is a map from bytes to the value that they hold. The caller's writes and then every step
are carried out on it. This shows:

ports        every input and output of the graph has a place of its size, but for parameters and
             buffers that nobody reads
bounds       every place is aligned and lies within its space
state        slots are apart; steps write slots as a whole and nothing between them
frozen       no step writes there, and what an entry writes does not lie there
calls        every call of the entry is made once, with its kernel and its arguments
apart        result and workspaces of a step overlap neither each other nor an operand
reads        every read finds the value that it asks for, whole
results      in the end outputs hold their values, and each slot its new or untouched value
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pockc.errors import InternalError, Problem
from pockc.ir.graph import Graph, Input, Node
from pockc.ir.roles import Buffer, Param, state_written
from pockc.plan.types import (
    ALIGN_BYTES,
    COPY_KERNEL,
    Constant,
    Entry,
    EntryPlan,
    Place,
    Plan,
    Space,
    StateKey,
    StateSlot,
    Step,
)


def verify_plan(entries: Sequence[Entry], plan: Plan) -> None:
    """Raise InternalError with everything that is wrong with a plan."""
    problems = tuple(plan_problems(entries, plan))
    if problems:
        raise InternalError(*problems)


def plan_problems(entries: Sequence[Entry], plan: Plan) -> Iterator[Problem]:
    """Yield everything that is wrong with a plan for these entries."""
    yield from _state_problems(plan)
    names = [e.name for e in plan.entries]
    if names != [e.name for e in entries]:
        yield _problem("plan-entries", f"entries {names} were not asked for in this order")
        return
    for entry, planned in zip(entries, plan.entries, strict=True):
        if planned.arena_bytes > plan.arena_bytes:
            yield _problem("plan-bounds", f"'{entry.name}' needs more than the plan's arena")
        if planned.lower_bound_bytes > planned.arena_bytes:
            yield _problem("plan-bounds", f"'{entry.name}' needs less than its lower bound")
        yield from _Simulation(entry, planned, plan).problems()


def _problem(slug: str, what: str) -> Problem:
    return Problem(slug, what, fix="this is a defect of pockc; please report the graph")


def _state_problems(plan: Plan) -> Iterator[Problem]:
    limits = {Space.STATE: plan.state.nbytes, Space.FROZEN: plan.state.frozen_nbytes}
    for space, limit in limits.items():
        slots = [s for s in plan.state.slots if s.space is space]
        yield from _slot_problems(sorted(slots, key=lambda s: s.offset_bytes), limit)
    for slot in plan.state.slots:
        if slot.space not in limits:
            yield _problem("plan-state", f"{slot.key} lies in {slot.space.value}")
        if isinstance(slot.key, Constant) and slot.literal is None:
            yield _problem("plan-state", f"{slot.key} has no content")


def _slot_problems(slots: Sequence[StateSlot], limit: int) -> Iterator[Problem]:
    end, before = 0, None
    for slot in slots:
        if slot.offset_bytes < end:
            yield _problem("plan-state", f"slots of {slot.key} and {before} overlap")
        if slot.offset_bytes % ALIGN_BYTES:
            yield _problem("plan-bounds", f"slot of {slot.key} is not aligned")
        end, before = slot.offset_bytes + slot.type.nbytes, slot.key
    if end > limit:
        yield _problem("plan-bounds", f"slot of {before} ends behind its space")


@dataclass
class _Memory:
    """Which bytes of a space hold which value: disjoint ranges (first, end, value) in order."""

    ranges: list[tuple[int, int, str]] = field(default_factory=list)

    def write(self, first: int, end: int, value: str) -> None:
        low, high = self._meeting(first, end)
        kept = [(first, end, value)]
        for a, b, old in self.ranges[low:high]:
            kept += [(x, y, old) for x, y in ((a, min(b, first)), (max(a, end), b)) if x < y]
        self.ranges[low:high] = sorted(kept)

    def holds(self, first: int, end: int) -> set[str]:
        """Return the values found in a range, with "nothing" for bytes nobody wrote."""
        low, high = self._meeting(first, end)
        inside = [(max(a, first), min(b, end), v) for a, b, v in self.ranges[low:high]]
        covered = sum(b - a for a, b, _ in inside)
        found = {v for _, _, v in inside}
        return found if covered == end - first else found | {"nothing"}

    def _meeting(self, first: int, end: int) -> tuple[int, int]:
        """Return from where to where in the list the ranges meet the given bytes."""
        low = bisect_right(self.ranges, first, key=lambda r: r[1])
        high = bisect_left(self.ranges, end, key=lambda r: r[0])
        return low, max(low, high)


class _Simulation:
    """One entry, run on labels."""

    def __init__(self, entry: Entry, planned: EntryPlan, plan: Plan) -> None:
        self.entry, self.planned, self.plan = entry, planned, plan
        self.graph: Graph = entry.graph
        self.content = self._contents()
        self.memory = {space: _Memory() for space in Space}
        self.limits = {
            Space.ARENA: planned.arena_bytes,
            Space.STATE: plan.state.nbytes,
            Space.FROZEN: plan.state.frozen_nbytes,
            Space.SCALAR: plan.scalar_bytes,
        }
        self.slots = {s.place: s.key for s in plan.state.slots}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong, in the order of execution."""
        yield from self._load()
        waiting = dict(self.entry.calls)
        for step in self.planned.steps:
            if step.kernel == COPY_KERNEL:
                yield from self._copy(step)
            elif waiting.pop(step.node, None) is None:
                yield _problem("plan-calls", f"nobody asked for {step.kernel} of %{step.node}")
            else:
                yield from self._step(step)
        for name in waiting:
            yield _problem("plan-calls", f"%{name} is never computed")
        yield from self._results()

    def _contents(self) -> dict[str, str]:
        """Return the label of each value's bytes; a view has its operand's."""
        content = {i.name: f"%{i.name}" for i in self.graph.inputs}
        for node in self.graph.nodes:
            if node.name in self.entry.calls:
                content[node.name] = f"%{node.name}"
            elif node.op == "literal":
                content[node.name] = _constant_label(node)
            else:
                content[node.name] = content[node.inputs[0]]
        return content

    def _load(self) -> Iterator[Problem]:
        """Write what lies in memory before the first step."""
        for slot in self.plan.state.slots:
            self._put(slot.place, self._label(slot.key))
        ports = {p.role: p for p in self.planned.inputs}
        for source in self.graph.inputs:
            port = ports.get(source.role)
            if port is None and self._is_unread(source):
                continue
            if port is None or port.place.nbytes != source.type.nbytes:
                yield _problem("plan-ports", f"input {source.role} has no place of its size")
                continue
            lasting = port.place.space in (Space.STATE, Space.FROZEN)
            if lasting and self.slots.get(port.place) != source.role:
                yield _problem("plan-ports", f"input {source.role} lies in a slot of another")
            yield from self._bounds(port.place, f"input {source.role}")
            self._put(port.place, f"%{source.name}")
        for source in self.graph.inputs:
            if source.role in ports:
                yield from self._read(ports[source.role].place, source.name, "the caller")

    def _is_unread(self, source: Input) -> bool:
        """Return whether an input of the state is read by nobody, and so needs no place."""
        reads = {i for n in self.graph.nodes for i in n.inputs}
        reads |= {o.value for o in self.graph.outputs}
        return isinstance(source.role, Param | Buffer) and source.name not in reads

    def _label(self, key: StateKey) -> str:
        if isinstance(key, Constant):
            return f"constant {key.digest} {key.layout}"
        source = self.graph.input_of(key)
        return f"state {key}" if source is None else f"%{source.name}"

    def _put(self, place: Place, label: str) -> None:
        if place.nbytes:
            first = place.offset_bytes
            self.memory[place.space].write(first, first + place.nbytes, label)

    def _bounds(self, place: Place, what: str) -> Iterator[Problem]:
        if place.offset_bytes % ALIGN_BYTES:
            yield _problem("plan-bounds", f"{what} at {place} is not aligned")
        if not 0 <= place.offset_bytes <= self.limits[place.space] - place.nbytes:
            yield _problem("plan-bounds", f"{what} at {place} lies outside its space")

    def _read(self, place: Place, value: str, reader: str) -> Iterator[Problem]:
        nbytes = self.graph.type_of(value).nbytes
        if place.nbytes != nbytes:
            yield _problem("plan-calls", f"%{value} has {nbytes} bytes, {reader} gets {place}")
        if not place.nbytes:
            return
        first = place.offset_bytes
        found = self.memory[place.space].holds(first, first + place.nbytes)
        if found != {self.content[value]}:
            shown = ", ".join(sorted(found))
            what = f"{reader} looks for %{value} at {place} and finds {shown}"
            yield _problem("plan-clobbered", what)

    def _copy(self, step: Step) -> Iterator[Problem]:
        source, target = step.args
        if source.nbytes != target.nbytes:
            yield _problem("plan-calls", f"a copy of {source} does not fit {target}")
        yield from self._read(source, step.node, "a copy")
        yield from self._write(target, self.content[step.node], "a copy", (source,))

    def _step(self, step: Step) -> Iterator[Problem]:
        node, call = self.graph.defs[step.node], self.entry.calls[step.node]
        if not isinstance(node, Node) or step.kernel != call.symbol:
            yield _problem("plan-calls", f"%{step.node} is not computed by {step.kernel}")
            return
        overwrites = node.attrs.get("inplace")
        reads = len(call.operands)
        results = 0 if overwrites is not None else 1
        who = f"%{node.name}"
        if len(step.args) != reads + results + len(call.workspace_bytes):
            yield _problem("plan-calls", f"{who} gets {len(step.args)} arguments")
            return
        operands, spaces = step.args[:reads], step.args[reads + results :]
        if overwrites is not None:
            result = operands[call.operands.index(node.inputs[overwrites])]
            others = tuple(p for p in operands if p != result)
        else:
            result, others = step.args[reads], operands
        for place, value in zip(operands, call.operands, strict=True):
            yield from self._bounds(place, f"operand %{value} of {who}")
            yield from self._read(place, value, who)
        if result.nbytes != node.type.nbytes:
            yield _problem("plan-calls", f"{who} needs {node.type.nbytes} bytes, not {result}")
        if tuple(p.nbytes for p in spaces) != call.workspace_bytes:
            yield _problem("plan-calls", f"{who} gets workspaces of other sizes")
        yield from self._write(result, f"%{node.name}", who, (*others, *spaces))
        for number, place in enumerate(spaces):
            label = f"workspace {number} of {who}"
            yield from self._write(place, label, label, (*others, *spaces[:number]))

    def _write(
        self, place: Place, label: str, who: str, others: Sequence[Place]
    ) -> Iterator[Problem]:
        yield from self._bounds(place, f"the result of {who}")
        for other in others:
            same_space = other.space is place.space and other.nbytes and place.nbytes
            first = max(place.offset_bytes, other.offset_bytes)
            if same_space and first < min(_end(place), _end(other)):
                yield _problem("plan-apart", f"{who} writes {place} over its own {other}")
        if place.space is Space.SCALAR:
            yield _problem("plan-bounds", f"{who} writes a scalar at {place}")
        if place.space is Space.FROZEN:
            yield _problem("plan-frozen", f"{who} writes {place}, which is read-only")
        if place.space is Space.STATE and place not in self.slots:
            yield _problem("plan-state", f"{who} writes {place}, which is no slot")
        self._put(place, label)

    def _results(self) -> Iterator[Problem]:
        ports = {p.role: p for p in self.planned.outputs}
        final = {s.key: self._label(s.key) for s in self.plan.state.slots}
        for output in self.graph.outputs:
            port = ports.get(output.role)
            if port is None:
                yield _problem("plan-ports", f"output {output.role} has no place")
                continue
            yield from self._read(port.place, output.value, f"output {output.role}")
            key = state_written(output.role)
            if isinstance(key, StateKey):
                final[key] = self.content[output.value]
        for slot in self.plan.state.slots:
            place = slot.place
            first = place.offset_bytes
            found = self.memory[place.space].holds(first, _end(place))
            if place.nbytes and found != {final[slot.key]}:
                shown = ", ".join(sorted(found))
                what = f"{slot.key} should hold {final[slot.key]} in the end and holds {shown}"
                yield _problem("plan-state", what)


def _end(place: Place) -> int:
    return place.offset_bytes + place.nbytes


def _constant_label(node: Node) -> str:
    key = Constant(node.attrs["value"].digest, node.type.layout)
    return f"constant {key.digest} {key.layout}"
