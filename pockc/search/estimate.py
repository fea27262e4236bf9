"""Estimates of thousands of schemes a second, put together from pieces of real plans.

A step's memory over time falls into one piece per block. While block b runs, forward or
backward, what lives is what the blocks before it keep for their backward passes, and the
block's own values. Both depend on what is trained of the block, on whether anything before
it is trained, and on whether the next block's weight gradients read its result. So every plan
that the compiler makes is cut into such pieces, which are kept. An estimate is a few sums and a
maximum of them: it takes what is known beside the same choices, or else the largest sizes that
are known of the same choice, or of those most like it.

It is an estimate and no more. Which order of kernels needs less memory is decided for a step
as a whole, updates wait for each other across blocks, and the arena may need gaps: no sum of
pieces tells that. `exact` does, which is the compiler's own plan; a search makes one of all
that it returns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pockc import driver, plan
from pockc.frontend.captured import Captured
from pockc.plan.arena import aligned
from pockc.scheme import Config
from pockc.search.cost import Cost, cost_of
from pockc.search.kernel_times import KernelTimes
from pockc.search.pieces import Cut, Piece, input_readers
from pockc.search.prediction import STEP_ENTRIES
from pockc.search.space import Genes, Space


class Context(NamedTuple):
    """What a piece depends on.

    Attributes:
        own: Its block's choice, and what it is known to need of others.
        beside: What is trained of the blocks around it.
    """

    own: tuple[object, ...]
    beside: Genes


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
    """

    captured: Captured
    space: Space
    base: Config
    options: driver.Options
    times: KernelTimes
    plans: int = 0
    _sizes: dict[tuple[object, ...], Piece] = field(default_factory=dict)
    _state: dict[object, int] = field(default_factory=dict)
    _ports: plan.Tables = field(default_factory=plan.Tables)
    _most_tensors: int = 0
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

    def estimate(self, genes: Genes) -> Cost | None:
        """Return about what a plan would have, None if nothing alike is known of a choice.

        Where nothing is known beside the same choices, it takes the largest pieces that are
        known of the same choice, or else of those most like it.
        """
        most, ms = 0, 0.0
        tables = self._ports + plan.Tables(tensors=self._most_tensors)
        contexts = self._contexts(genes)
        for entry in self._entries():
            kept = 0
            runs = self.captured.micro_batches if entry == "train_step" else 1
            for at, context in contexts.items():
                kin = _kin(entry, at, context)
                piece = next((p for k in kin if (p := self._sizes.get(k))), None)
                if piece is None:
                    return None
                most = max(most, kept + piece.own_bytes)
                kept += piece.kept_bytes
                tables += piece.tables
                if entry in STEP_ENTRIES:
                    ms += runs * piece.ms
        state = self._state_bytes(genes)
        if state is None:
            return None
        runtime = plan.runtime_bound(tables, state, most, self._host)
        return Cost(state, most, ms, runtime.nbytes)

    def _entries(self) -> tuple[str, ...]:
        names = ("train_step", "evaluate", "predict")
        return (*names, "apply_update") if self.captured.micro_batches > 1 else names

    def _contexts(self, genes: Genes) -> dict[int, Context]:
        """Return what the pieces of each place depend on."""
        first = self.space.first_trained(genes)
        found = {}
        for at, own in self._places(genes):
            middle = first if at < 0 else at
            found[at] = Context(own, genes[max(0, middle - 1) : middle + 2])
        return found

    def _places(self, genes: Genes) -> Iterator[tuple[int, tuple[object, ...]]]:
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
        yield len(genes), (first == len(genes),)

    def _state_bytes(self, genes: Genes) -> int | None:
        total = self._state.get("fixed")
        if total is None:
            return None
        for at, gene in enumerate(genes):
            part = self._state.get((at, gene))
            if gene and part is None:
                return None
            total += part or 0
        return total

    def _learn(self, genes: Genes, planned: driver.Planned) -> None:
        self._learn_state(genes, planned)
        contexts, first = self._contexts(genes), self.space.first_trained(genes)
        self._most_tensors = max(self._most_tensors, len(planned.memory.state.slots))
        self._ports = plan.Tables()
        for entry in planned.entries:
            layout = planned.memory.entry(entry.name)
            if layout is not None:
                self._learn_sizes(Cut(entry, self.space, first), layout, contexts)
                self._ports += plan.Tables(ports=plan.entry_tables(layout).ports)

    def _learn_sizes(
        self, cut: Cut, layout: plan.EntryPlan, contexts: dict[int, Context]
    ) -> None:
        ms: dict[int, float] = defaultdict(float)
        tables: dict[int, plan.Tables] = defaultdict(plan.Tables)
        for step, at in zip(layout.steps, cut.places, strict=True):
            ms[at] += self.times.step_ms(cut.entry.graph, step)
            tables[at] += plan.Tables(1, len(step.args))
        pieces = cut.pieces()
        for at, context in contexts.items():
            piece = pieces.get(at, Piece())
            piece.ms, piece.tables = ms[at], tables[at]
            for key in _kin(cut.entry.name, at, context):
                known = self._sizes.get(key)
                self._sizes[key] = piece if known is None else known.largest(piece)

    def _learn_state(self, genes: Genes, planned: driver.Planned) -> None:
        sizes: dict[object, int] = {"fixed": 0}
        owner = {
            p: at
            for at, unit in enumerate(self.space.units)
            for p in (*unit.biases, *unit.weights)
        }
        sizes |= {(at, gene): 0 for at, gene in enumerate(genes) if gene}
        for slot in planned.memory.state.slots:
            if slot.space is not plan.Space.STATE:
                continue
            name = getattr(slot.key, "param", getattr(slot.key, "name", None))
            at = owner.get(str(name))
            key: object = "fixed" if at is None else (at, genes[at])
            sizes[key] += aligned(slot.type.nbytes)
        self._state |= sizes


def _kin(entry: str, at: int, context: Context) -> Iterator[tuple[object, ...]]:
    """Yield what pieces have in common with one, the nearest first.

    A block's own choice says most, and whether a block before it is trained comes next; of
    what lies before all trained blocks, which of them is the first.
    """
    own = context.own
    yield entry, at, own, context.beside
    yield entry, at, own
    yield entry, at, own[:2]
    yield entry, at, own[:1]
