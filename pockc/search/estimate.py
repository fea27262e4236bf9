"""Costs of thousands of schemes a second, put together from pieces of real plans.

A step's memory over time falls into one piece per block. While block b runs, forward or
backward, what lives is what the blocks before it keep for their backward passes, and the
block's own values. Both depend on what is trained of the block, on whether anything before
it is trained, and on whether the next block's weight gradients read its result. So every plan
that the compiler makes is cut into such pieces, which are kept; a scheme whose pieces are all
known is a few sums and a maximum. For a scheme with an unknown piece the compiler runs, and
all its pieces are known from then on.

Where a piece depends on more than that, as where the update of one block's weight runs when
the next block's backward pass has begun, the same piece comes out of two plans with different
sizes. Then a range of sizes is known of it, and exact ones only together with what is trained
of the blocks beside it. A scheme's cost is known if the ends of all ranges give the same
maximum, which they do where the peak is elsewhere; if not, the compiler runs.

What is left is the placement in the arena, which takes more than the bytes alive at one time
where blocks cannot be placed without gaps: that is seen in a plan only, and the search makes
one of whatever it returns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pockc import driver, plan
from pockc.frontend.captured import Captured
from pockc.ir import Graph, OptState, Param
from pockc.ir.phases import forward_end
from pockc.plan.arena import aligned
from pockc.plan.liveness import Block, blocks_of
from pockc.plan.program import Program, program_of
from pockc.scheme import Config
from pockc.scheme.blocks import is_below
from pockc.search.cost import STEP_ENTRIES, Cost, cost_of
from pockc.search.kernel_times import KernelTimes
from pockc.search.space import Genes, Space

Key = tuple[str, int, object, Genes | None]
"""An entry, a place in it (a block, or what lies before or behind all blocks), what it depends
on, and what is trained of the blocks beside it."""


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


@dataclass(slots=True)
class Range:
    """The sizes that pieces had which differ in the blocks beside them only."""

    own: tuple[int, int]
    kept: tuple[int, int]
    ms: float
    tables: plan.Tables

    @classmethod
    def of(cls, piece: Piece) -> Range:
        """Return the range of one piece."""
        own, kept = piece.own_bytes, piece.kept_bytes
        return cls((own, own), (kept, kept), piece.ms, piece.tables)

    def take(self, piece: Piece) -> None:
        """Widen the range to hold another piece."""
        self.own = min(self.own[0], piece.own_bytes), max(self.own[1], piece.own_bytes)
        self.kept = min(self.kept[0], piece.kept_bytes), max(self.kept[1], piece.kept_bytes)

    def widened(self, own: int, kept: int) -> Range:
        """Return the range with as much added on both sides."""
        return Range(
            (self.own[0] - own, self.own[1] + own),
            (self.kept[0] - kept, self.kept[1] + kept),
            self.ms,
            self.tables,
        )


@dataclass
class Estimator:
    """Knows the cost of schemes of one model, and learns more where it must.

    Attributes:
        captured: The model.
        space: Its schemes.
        base: The optimizer and everything else but what is trained.
        options: The target.
        times: Times of kernels.
        plans: How many plans were made.
        conflicts: How often a piece had another size than before, the blocks beside it being
            equal.
    """

    captured: Captured
    space: Space
    base: Config
    options: driver.Options
    times: KernelTimes
    plans: int = 0
    conflicts: int = 0
    _near: dict[Key, Range] = field(default_factory=dict)
    _wide: dict[Key, Range] = field(default_factory=dict)
    _largest: dict[tuple[object, ...], Range] = field(default_factory=dict)
    _spread: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    _state: dict[object, int] = field(default_factory=dict)
    _tensors: dict[object, int] = field(default_factory=dict)
    _host: plan.Host = field(default_factory=plan.Host)
    _recipes: dict[tuple[object, ...], object] = field(default_factory=dict)
    _exact: dict[Genes, Cost] = field(default_factory=dict)
    _readers: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        """Find which weights of a block read its input."""
        self._readers = input_readers(self.captured.train, self.space)

    def exact(self, genes: Genes) -> Cost:
        """Return what the compiler itself plans for a scheme, and learn its pieces."""
        if genes not in self._exact:
            config = self.space.config(self.base, genes)
            planned = driver.plan_captured(self.captured, config, self.options, self._recipes)  # type: ignore[arg-type]
            self.plans += 1
            self._host = planned.host
            cost = cost_of(planned, self.times, self.captured.micro_batches)
            self._exact[genes] = cost
            self._learn(genes, planned)
        return self._exact[genes]

    def is_exact(self, genes: Genes) -> bool:
        """Whether a scheme was planned."""
        return genes in self._exact

    def cost(self, genes: Genes) -> Cost:
        """Return the cost of a scheme: from pieces if all are known, else from a plan."""
        known = self._exact.get(genes)
        return known or self.composed(genes) or self.exact(genes)

    def composed(self, genes: Genes, *, near: bool = False) -> Cost | None:
        """Return the cost of a scheme out of known pieces, None if they do not tell it.

        Args:
            genes: The scheme.
            near: Be content with an estimate: the largest pieces that are known of the same
                choice, where none is known beside these choices, and the upper ends of ranges.
        """
        least, most, ms, tables = 0, 0, 0.0, plan.Tables()
        places = list(self._places(genes))
        for entry in self._entries():
            low = high = 0
            runs = self.captured.micro_batches if entry == "train_step" else 1
            for at, context in places:
                piece = self._known(entry, at, context, genes)
                if piece is None and near:
                    piece = self._nearest(entry, at, context)
                if piece is None:
                    return None
                least = max(least, low + piece.own[0])
                most = max(most, high + piece.own[1])
                low += piece.kept[0]
                high += piece.kept[1]
                tables += piece.tables
                if entry in STEP_ENTRIES:
                    ms += runs * piece.ms
        state, tensors = self._sum(self._state, genes), self._sum(self._tensors, genes)
        if state is None or tensors is None or not (near or least == most):
            return None
        tables += plan.Tables(tensors=tensors)
        runtime = plan.runtime_bound(tables, state, most, self._host)
        return Cost(state, most, ms, runtime.nbytes)

    def _known(self, entry: str, at: int, context: object, genes: Genes) -> Range | None:
        """Return what is known of a piece, None for nothing."""
        near = self._near.get((entry, at, context, self._beside(at, genes)))
        if near is not None:
            return near
        wide = self._wide.get((entry, at, context, None))
        spread = self._spread.get((entry, at))
        return wide.widened(*spread) if wide is not None and spread is not None else wide

    def _nearest(self, entry: str, at: int, context: object) -> Range | None:
        """Return the largest known sizes of pieces that have most in common with one."""
        return next((r for k in _kin(entry, at, context) if (r := self._largest.get(k))), None)

    def _beside(self, at: int, genes: Genes) -> Genes:
        """Return what is trained of the blocks around a place."""
        middle = self.space.first_trained(genes) if at < 0 else at
        return genes[max(0, middle - 1) : middle + 2]

    def _entries(self) -> tuple[str, ...]:
        names = ("train_step", "evaluate", "predict")
        return (*names, "apply_update") if self.captured.micro_batches > 1 else names

    def _places(self, genes: Genes) -> Iterator[tuple[int, object]]:
        """Yield each block with what its piece depends on, and the ends of the model.

        What lies before the first trained block is inference: one piece, whatever the rest is.
        """
        first = self.space.first_trained(genes)
        start = genes[first] if first < len(genes) else None
        # A block's result is kept if the gradient of a weight of the next one reads it.
        choices = self.space.choices(genes)
        reads = [
            *(not w.isdisjoint(c.weights) for w, c in zip(self._readers, choices, strict=True)),
            True,
        ]
        yield -1, (first, start)
        for at in range(first, len(genes)):
            yield at, (genes[at], at == first, reads[at + 1])
        yield len(genes), first == len(genes)

    @staticmethod
    def _sum(parts: dict[object, int], genes: Genes) -> int | None:
        """Return what is fixed and the parts of all that is trained, None if one is unknown."""
        total = parts.get("fixed")
        if total is None:
            return None
        for at, gene in enumerate(genes):
            part = parts.get((at, gene))
            if gene and part is None:
                return None
            total += part or 0
        return total

    def _learn(self, genes: Genes, planned: driver.Planned) -> None:
        self._learn_state(genes, planned)
        context = dict(self._places(genes))
        for entry in planned.entries:
            cut = _Cut(entry, self.space, self.space.first_trained(genes))
            layout = planned.memory.entry(entry.name)
            ms: dict[int, float] = defaultdict(float)
            tables: dict[int, plan.Tables] = defaultdict(plan.Tables)
            for step, at in zip(layout.steps if layout else (), cut.places, strict=False):
                ms[at] += self.times.step_ms(entry.graph, step)
                tables[at] += plan.Tables(1, len(step.args))
            if layout is not None:
                tables[-1] += replace(plan.entry_tables(layout), steps=0, arguments=0)
            pieces = cut.pieces()
            for at, known in context.items():
                piece = pieces.get(at, Piece())
                piece.ms, piece.tables = ms[at], tables[at]
                self._keep((entry.name, at, known), genes, piece)

    def _keep(self, place: tuple[str, int, object], genes: Genes, piece: Piece) -> None:
        entry, at, _ = place
        for kin in _kin(*place):
            largest = self._largest.setdefault(kin, Range.of(piece))
            largest.take(piece)
            largest.own = largest.own[1], largest.own[1]
            largest.kept = largest.kept[1], largest.kept[1]
            largest.ms = max(largest.ms, piece.ms)
        near = self._near.setdefault((*place, self._beside(at, genes)), Range.of(piece))
        known = near.own, near.kept
        near.take(piece)
        self.conflicts += (near.own, near.kept) != known
        wide = self._wide.setdefault((*place, None), Range.of(piece))
        wide.take(piece)
        spread = wide.own[1] - wide.own[0], wide.kept[1] - wide.kept[0]
        if any(spread):
            old = self._spread.get((entry, at), (0, 0))
            self._spread[entry, at] = max(old[0], spread[0]), max(old[1], spread[1])

    def _learn_state(self, genes: Genes, planned: driver.Planned) -> None:
        sizes: dict[object, int] = {"fixed": 0}
        counts: dict[object, int] = {"fixed": len(planned.memory.state.slots)}
        owner = {
            p: at
            for at, unit in enumerate(self.space.units)
            for p in (*unit.biases, *unit.weights)
        }
        trained = {(at, gene): 0 for at, gene in enumerate(genes) if gene}
        sizes |= trained
        counts |= trained
        for slot in planned.memory.state.slots:
            if slot.space is not plan.Space.STATE:
                continue
            name = getattr(slot.key, "param", getattr(slot.key, "name", None))
            at = owner.get(str(name))
            key: object = "fixed" if at is None else (at, genes[at])
            sizes[key] += aligned(slot.type.nbytes)
            # What the optimizer keeps of a tensor comes with its training; the rest is there.
            if key != "fixed" and isinstance(slot.key, OptState):
                counts[key] += 1
                counts["fixed"] -= 1
        self._state |= sizes
        counts["fixed"] = max(counts["fixed"], self._tensors.get("fixed", 0))
        self._tensors |= counts


def _kin(entry: str, at: int, context: object) -> tuple[tuple[object, ...], ...]:
    """Return what pieces have in common with one, the nearest first.

    A block's own choice says most, and whether a block before it is trained comes next; of
    what lies before all trained blocks, which of them is the first.
    """
    if not isinstance(context, tuple):
        return ((entry, at),)
    return ((entry, at, *context[:2]), (entry, at, context[0]))


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


class _Cut:
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
