"""Cuts a plan's entry into pieces, one a block of the model, with the sizes of each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from pockc import plan
from pockc.ir import Graph, Param
from pockc.ir.phases import forward_end
from pockc.plan.arena import aligned
from pockc.plan.liveness import Block, blocks_of
from pockc.plan.program import Program, program_of
from pockc.scheme.blocks import is_below
from pockc.search.space import Space


@dataclass(slots=True)
class Piece:
    """A block's part of an entry.

    Attributes:
        own_bytes: The most bytes of its own that live while it runs.
        kept_bytes: What it keeps for the backward pass.
        ms: The time of its kernels.
        tables: Their rows in the runtime's tables.
    """

    own_bytes: int = 0
    kept_bytes: int = 0
    ms: float = 0.0
    tables: plan.Tables = plan.Tables()  # noqa: RUF009  immutable

    def largest(self, other: Piece) -> Piece:
        """Return the larger sizes of two pieces."""
        return Piece(
            max(self.own_bytes, other.own_bytes),
            max(self.kept_bytes, other.kept_bytes),
            max(self.ms, other.ms),
            self.tables.most(other.tables),
        )


def input_readers(graph: Graph, space: Space) -> tuple[frozenset[str], ...]:
    """Return for each block the weights that are multiplied with what goes into the block.

    Args:
        graph: The captured training step.
        space: The blocks.
    """
    turn = forward_end(graph)
    nodes = graph.nodes[: len(graph.nodes) if turn is None else turn + 1]
    made = {n.name: n for n in nodes}
    owner = {
        n.name: next(
            (i for i, u in enumerate(space.units) if is_below(n.source.module, u.name)), None
        )
        for n in nodes
        if n.source and n.source.module
    }
    params = {i.name: i.role.name for i in graph.inputs if isinstance(i.role, Param)}

    def base(value: str) -> str:
        while value in made and made[value].op in ("reshape", "permute"):
            value = made[value].inputs[0]
        return value

    found: list[set[str]] = [set() for _ in space.units]
    for node in nodes:
        at = owner.get(node.name)
        if at is None:
            continue
        operands = [base(i) for i in node.inputs]
        outside = any(o in made and owner.get(o) != at for o in operands)
        if outside:
            found[at] |= {params[o] for o in operands if o in params}
    return tuple(frozenset(f) for f in found)


class Cut:
    """An entry's calls, each with the block that it belongs to."""

    def __init__(self, entry: plan.Entry, space: Space, first: int) -> None:
        self.entry, self.first, self.last = entry, first, len(space.units)
        self.program: Program = program_of(entry)
        names = [u.name for u in space.units]
        owner = {
            p: at for at, u in enumerate(space.units) for p in (*u.biases, *u.weights)
        } | dict.fromkeys(space.head, self.last)
        self._find(names, owner)

    def _find(self, names: list[str], owner: dict[str, int]) -> None:
        graph = self.entry.graph
        turn = forward_end(graph)
        forward = {
            n.name for n in graph.nodes[: (turn if turn is not None else len(graph.nodes)) + 1]
        }
        place: dict[str, int] = {}
        for source in graph.inputs:
            role = source.role
            name = getattr(role, "param", getattr(role, "name", ""))
            place[source.name] = owner.get(name, -1)
        before = -1
        backward: set[str] = set()
        for node in graph.nodes:
            module = node.source.module if node.source else ""
            found = next(
                (i for i, n in enumerate(names) if module and is_below(module, n)), None
            )
            if found is None:
                operands = [place[i] for i in node.inputs]
                if node.name in forward:
                    found = max(operands, default=-1)
                    # Behind the last block begins the head.
                    if found == self.last - 1 and node.source and node.source.module:
                        found = self.last
                else:
                    late = [place[i] for i in node.inputs if i in backward]
                    found = min(late) if late else max(operands, default=before)
            if node.op != "literal":
                before = found
            place[node.name] = found
            if node.name not in forward:
                backward.add(node.name)
        self.value_place = {v: self._merged(p) for v, p in place.items()}
        # What belongs to no block, as a factor of all updates, is made where it is needed.
        self.places: list[int] = []
        for call in self.program.instructions:
            at = self.value_place.get(call.node, -1)
            self.places.append(self.places[-1] if at < 0 and self.places else at)

    def _merged(self, at: int) -> int:
        """Take all that comes before the first trained block as one."""
        return -1 if at < self.first and at < self.last else at

    def pieces(self) -> dict[int, Piece]:
        """Return the pieces of this entry by place."""
        blocks = blocks_of(self.program)
        found: dict[int, Piece] = defaultdict(Piece)
        kept = self._kept(blocks)
        for block, at in kept.items():
            found[at].kept_bytes += aligned(block.nbytes)
        end = len(self.program.instructions) + 1
        at_time = [-1, *self.places, self.last]
        live: list[list[Block]] = [[] for _ in range(end + 1)]
        for block in blocks:
            for time in range(block.start, min(block.end, end) + 1):
                live[time].append(block)
        before: dict[int, int] = {}
        total = 0
        for at in (-1, *range(self.last + 1)):
            before[at] = total
            total += found[at].kept_bytes
        for time, alive in enumerate(live):
            at = at_time[time]
            base = sum(aligned(b.nbytes) for b in alive if b in kept and kept[b] < at)
            own = sum(aligned(b.nbytes) for b in alive)
            if base == before[at]:
                own -= base
            elif own <= before[at]:
                continue  # something that runs late, after what blocks keep is gone
            else:
                own -= before[at]
            found[at].own_bytes = max(found[at].own_bytes, own)
        return found

    def _kept(self, blocks: list[Block]) -> dict[Block, int]:
        """Return the values that live when the forward pass ends, with their blocks."""
        graph = self.entry.graph
        turn = forward_end(graph)
        if turn is None:
            return {}
        forward = {n.name for n in graph.nodes[: turn + 1]}
        calls = self.program.instructions
        time = max((i + 1 for i, c in enumerate(calls) if c.node in forward), default=0)
        # A sum may be written over its operand, which another block made: what is kept is the
        # sum. So the last one that writes to a place is its owner.
        writer = {
            self.program.root[c.result]: at
            for c, at in zip(calls[:time], self.places, strict=False)
        }
        return {
            b: writer.get(str(b.key), -1)
            for b in blocks
            if b.start < time < b.end and isinstance(b.key, str)
        }
