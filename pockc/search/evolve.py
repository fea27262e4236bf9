"""Chooses schemes: evolution as in Lin et al. (NeurIPS 2022, section 3.2), and greedily.

Both maximise the sum of contributions under budgets of memory and time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pockc.search.contribution import Contributions
from pockc.search.cost import Cost
from pockc.search.space import Genes, Space

Costs = Callable[[Genes], Cost]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a step may take; None is no limit."""

    memory_bytes: int | None = None
    step_ms: float | None = None

    def allows(self, cost: Cost) -> bool:
        """Whether a cost is within it."""
        memory = self.memory_bytes is None or cost.memory_bytes <= self.memory_bytes
        return memory and (self.step_ms is None or cost.step_ms <= self.step_ms)

    def load(self, cost: Cost) -> float:
        """Return the largest share of a limit that a cost takes."""
        shares = [0.0]
        if self.memory_bytes:
            shares.append(cost.memory_bytes / self.memory_bytes)
        if self.step_ms:
            shares.append(cost.step_ms / self.step_ms)
        return max(shares)


@dataclass(frozen=True, slots=True)
class Found:
    """A scheme that was looked at."""

    genes: Genes
    cost: Cost
    contribution: float


@dataclass(frozen=True)
class Settings:
    """How the evolution runs.

    Attributes:
        population: Schemes of a generation.
        generations: How many generations.
        mutation: Chance of each gene to change.
        parents: Share of a generation that has children.
        seed: Of all choices.
        finalists: How many of the best schemes are returned.
    """

    population: int = 48
    generations: int = 40
    mutation: float = 0.15
    parents: float = 0.25
    seed: int = 0
    finalists: int = 1


class Search:
    """Looks for the best scheme of a space within a budget."""

    def __init__(
        self, space: Space, contributions: Contributions, costs: Costs, budget: Budget
    ) -> None:
        """Begin with nothing looked at."""
        self.space, self.contributions, self.costs = space, contributions, costs
        self.budget = budget
        self.seen: dict[Genes, Found] = {}
        self.planned: dict[Genes, Found] = {}

    def look(self, genes: Genes) -> Found:
        """Return cost and contribution of a scheme."""
        if genes not in self.seen:
            cost = self.costs(genes)
            self.seen[genes] = Found(genes, cost, self.contributions.of(genes))
        return self.seen[genes]

    def correct(self, genes: Genes, cost: Cost) -> Found:
        """Take the cost that a scheme's own plan has, and return the scheme with it."""
        found = Found(genes, cost, self.contributions.of(genes))
        self.planned[genes] = self.seen[genes] = found
        return found

    def forget(self) -> None:
        """Begin again with the schemes whose cost is sure: the others are estimated anew."""
        self.seen = dict(self.planned)

    def best(self) -> Found | None:
        """Return the best scheme looked at that the budget allows; of equals the cheapest."""
        return max(self._inside(), key=self._rank, default=None)

    def ranking(self) -> list[Found]:
        """Return all schemes looked at that the budget allows, the best one first."""
        return sorted(self._inside(), key=self._rank, reverse=True)

    def _inside(self) -> list[Found]:
        return [f for f in self.seen.values() if self.budget.allows(f.cost)]

    def _rank(self, found: Found) -> tuple[float, ...]:
        return found.contribution, -self.budget.load(found.cost), *(-g for g in found.genes)

    def greedy(self) -> Found | None:
        """Return the scheme that grows by the best gain for its cost until nothing fits.

        From the last block backwards, since the cost of a block depends on whether anything
        before it is trained; one start for each first block that may be trained.
        """
        none = (0,) * len(self.space.units)
        found = [self._grown(none, first) for first in range(len(none))]
        inside = [f for f in found if f is not None]
        return max(inside, key=self._rank, default=None)

    def _grown(self, start: Genes, first: int) -> Found | None:
        current = self.look(start)
        if not self.budget.allows(current.cost):
            return None
        while True:
            steps = [
                f
                for f in map(self.look, self._upgrades(current.genes, first))
                if self.budget.allows(f.cost) and f.contribution > current.contribution
            ]
            if not steps:
                return current
            current = max(steps, key=lambda f: self._worth(current, f))

    def _upgrades(self, genes: Genes, first: int) -> list[Genes]:
        """Return the schemes that differ in one block, to the best few of its menu."""
        found = []
        for at in range(first, len(genes)):
            gains = self.contributions.gains[at]
            better = [g for g in range(len(gains)) if gains[g] > gains[genes[at]]]
            found += [(*genes[:at], g, *genes[at + 1 :]) for g in better]
        return found

    def _worth(self, old: Found, new: Found) -> float:
        more = self.budget.load(new.cost) - self.budget.load(old.cost)
        return (new.contribution - old.contribution) / max(more, 1e-6)

    def evolve(
        self, settings: Settings, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Found | None:
        """Return the best scheme after some generations of mutation and crossover."""
        rng = random.Random(settings.seed)
        count = len(self.space.units)
        population = [(0,) * count]
        best = self.best()
        if best is not None:
            population.append(best.genes)
        while len(population) < settings.population:
            population.append(self._random(rng))
        for generation in range(settings.generations):
            fit = [self._repaired(g, rng) for g in population]
            ranked = sorted({f.genes: f for f in fit}.values(), key=self._rank, reverse=True)
            parents = ranked[: max(2, int(settings.parents * settings.population))]
            population = [p.genes for p in parents]
            while len(population) < settings.population:
                one, other = rng.choice(parents).genes, rng.choice(parents).genes
                crossed = rng.random() < 0.5
                child = self._crossed(one, other, rng) if crossed else one
                population.append(self._mutated(child, settings.mutation, rng))
            progress(generation + 1, settings.generations)
        return self.best()

    def _random(self, rng: random.Random) -> Genes:
        first = rng.randrange(len(self.space.units) + 1)
        units = enumerate(self.space.units)
        return tuple(0 if at < first else rng.randrange(len(u.menu)) for at, u in units)

    @staticmethod
    def _crossed(one: Genes, other: Genes, rng: random.Random) -> Genes:
        return tuple(rng.choice(pair) for pair in zip(one, other, strict=True))

    def _mutated(self, genes: Genes, chance: float, rng: random.Random) -> Genes:
        pairs = zip(genes, self.space.units, strict=True)
        return tuple(
            rng.randrange(len(u.menu)) if rng.random() < chance else g for g, u in pairs
        )

    def _repaired(self, genes: Genes, rng: random.Random) -> Found:
        """Freeze blocks, the first ones most likely, until a scheme is within the budget."""
        found = self.look(genes)
        while not self.budget.allows(found.cost) and any(found.genes):
            trained = [i for i, g in enumerate(found.genes) if g]
            at = min(rng.choice(trained), rng.choice(trained))
            found = self.look((*found.genes[:at], 0, *found.genes[at + 1 :]))
        return found

    def pareto(self) -> list[Found]:
        """Return what was looked at and nothing else beats in memory and contribution."""
        front: list[Found] = []
        order = sorted(self.seen.values(), key=lambda f: (f.cost.memory_bytes, -f.contribution))
        for found in order:
            if not front or found.contribution > front[-1].contribution:
                front.append(found)
        return front


def far_from(genes: Genes, others: Sequence[Found]) -> bool:
    """Whether a scheme differs from each other one in a quarter of the blocks or more."""
    least = max(1, len(genes) // 4)
    differing = (sum(a != b for a, b in zip(genes, o.genes, strict=True)) for o in others)
    return all(d >= least for d in differing)
