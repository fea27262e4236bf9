"""Runs a plan on real bytes with NumPy kernels, and helpers to make entries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pockc.backends.base import needs_kernel
from pockc.ir import Graph, InputRole, Node, OutputRole, TensorType
from pockc.ops.base import evaluate
from pockc.plan import COPY_KERNEL, Call, Constant, Entry, EntryPlan, Place, Plan, Space

GARBAGE = 0x7F  # four of them are 3.4e38 as a float


def entry_of(
    graph: Graph, workspaces: Mapping[str, tuple[int, ...]] | None = None, name: str = "step"
) -> Entry:
    """An entry in which every node that needs one has a kernel named after its op."""
    sizes = workspaces or {}
    calls = {
        n.name: Call(f"k_{n.op}", n.inputs, sizes.get(n.name, ()))
        for n in graph.nodes
        if needs_kernel(graph, n)
    }
    return Entry(name, graph, calls)


class Machine:
    """The memory of a plan; the arena starts out as garbage before every call."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = {
            Space.ARENA: bytearray(plan.arena_bytes),
            Space.STATE: bytearray([GARBAGE] * plan.state.nbytes),
            Space.FROZEN: bytearray([GARBAGE] * plan.state.frozen_nbytes),
            Space.SCALAR: bytearray(plan.scalar_bytes),
        }
        for slot in plan.state.slots:
            if isinstance(slot.key, Constant):
                assert slot.literal is not None
                self.write(slot.place, slot.type, slot.literal.array)

    def write(self, place: Place, tensor: TensorType, array: np.ndarray) -> None:
        raw = np.asarray(array, tensor.dtype.np).transpose(tensor.order).tobytes()
        assert len(raw) == place.nbytes
        self.memory[place.space][place.offset_bytes : place.end_bytes] = raw

    def read(self, place: Place, tensor: TensorType) -> np.ndarray:
        raw = bytes(self.memory[place.space][place.offset_bytes : place.end_bytes])
        physical = np.frombuffer(raw, tensor.dtype.np).reshape(tensor.physical_shape)
        return physical.transpose(np.argsort(tensor.order)) if tensor.rank else physical

    def run(
        self, entry: Entry, given: Mapping[InputRole, np.ndarray]
    ) -> dict[OutputRole, np.ndarray]:
        """Run an entry; what `given` does not name keeps the value it has."""
        planned = self.plan.entry(entry.name)
        assert planned is not None
        self.memory[Space.ARENA][:] = bytes([GARBAGE]) * self.plan.arena_bytes
        for port in planned.inputs:
            if port.role in given:
                self.write(port.place, port.type, given[port.role])
        self._steps(entry, planned)
        return {p.role: self.read(p.place, p.type) for p in planned.outputs}

    def _steps(self, entry: Entry, planned: EntryPlan) -> None:
        for step in planned.steps:
            if step.kernel == COPY_KERNEL:
                source, target = step.args
                data = self.memory[source.space][source.offset_bytes : source.end_bytes]
                self.memory[target.space][target.offset_bytes : target.end_bytes] = data
                continue
            node = entry.graph.defs[step.node]
            assert isinstance(node, Node)
            self._call(entry, node, step.args)

    def _call(self, entry: Entry, node: Node, args: tuple[Place, ...]) -> None:
        reads = entry.calls[node.name].operands
        operands = {
            value: self.read(place, entry.graph.type_of(value))
            for value, place in zip(reads, args, strict=False)
        }
        value = evaluate(node, [operands[i] for i in node.inputs])
        index = node.attrs.get("inplace")
        in_place = index is not None
        result = args[reads.index(node.inputs[index])] if in_place else args[len(reads)]
        for space in args[len(reads) + (0 if in_place else 1) :]:
            garbage = bytes([GARBAGE]) * space.nbytes
            self.memory[space.space][space.offset_bytes : space.end_bytes] = garbage
        self.write(result, node.type, value)
