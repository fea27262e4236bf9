"""One search: a captured model, its schemes, and the steps from budgets to a configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pockc import driver, runtime
from pockc.backends.tvm import targets
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.scheme import Config
from pockc.scheme.config import Optimizer
from pockc.search.contribution import Contributions
from pockc.search.cost import Cost
from pockc.search.estimate import Estimator
from pockc.search.evolve import Budget, Found, Search, Settings, far_from
from pockc.search.kernel_times import KernelTimes
from pockc.search.measuring import measure
from pockc.search.prediction import step_time
from pockc.search.proxy import Scores, proxy_scores
from pockc.search.space import Choice, Genes, Space, make_space
from pockc.units import milliseconds, size

MOST_MISSED = 8
"""Schemes of a round that turn out to be over the budget before estimates are raised."""
ROUNDS = 6
"""Of evolution and plans, until a plan is within the budget."""


@dataclass
class Session:
    """A model that schemes are looked for.

    Attributes:
        captured: The model.
        base: The optimizer and everything else but what is trained.
        options: The target.
        space: The schemes.
        times: Times of kernels.
        estimator: Knows what schemes cost.
        measuring: Whether the best schemes are run here before a budget of time is held to be
            kept.
    """

    captured: Captured
    base: Config
    options: driver.Options
    space: Space
    times: KernelTimes
    measuring: bool = False
    estimator: Estimator = field(init=False)
    _margin: float = field(init=False, default=1.0)
    _time_margin: float = field(init=False, default=1.0)

    def __post_init__(self) -> None:
        """Begin with no cost known."""
        self.take_space(self.space)

    def take_space(self, space: Space) -> None:
        """Choose from other schemes from now on."""
        self.space = space
        self.estimator = Estimator(
            self.captured, self.space, self.base, self.options, self.times
        )

    @classmethod
    def of(
        cls,
        captured: Captured,
        base: Config,
        options: driver.Options,
        *,
        head_lr_scale: float = 1.0,
        times_files: Sequence[Path] = (),
    ) -> Session:
        """Return the session of a captured model.

        Raises:
            UserError: [search-space] The model has no repeated blocks; [kernel-times].
        """
        target = targets.get(options.target)
        threads = options.threads or target.cores
        space = make_space(captured.parameters, captured.modules, head_lr_scale=head_lr_scale)
        times = KernelTimes.read(target, threads, times_files)
        return cls(captured, base, options, space, times)

    def scores(self, data: Mapping[str, np.ndarray], kind: str) -> Scores:
        """Return the proxy's scores; compiles a full update by plain SGD for it."""
        config = self.base.model_copy(
            update={"preset": "full", "update": None, "clip_norm": None, **_SGD}
        )
        with TemporaryDirectory(prefix="pockc-") as folder:
            path = Path(folder) / "full.pock"
            driver.build_captured(self.captured, config, path, self.options)
            with runtime.load(path, self.options.threads) as artifact:
                return proxy_scores(artifact, self.captured, data, kind=kind)

    def measure(self, genes: Genes) -> None:
        """Compile a scheme, run it on this machine, and add the times of its kernels.

        Raises:
            UserError: [measure] The target is another machine.
        """
        config = self.space.config(self.base, genes)
        self.times.add(measure(self.captured, config, self.options))

    def check(self, budget: Budget) -> None:
        """Refuse a budget that the head alone does not fit.

        Raises:
            UserError: [budget] It does not.
        """
        least = self.estimator.exact((0,) * len(self.space.units))
        if not budget.allows(least):
            raise UserError(_too_small(budget, least))

    def search(
        self,
        gains: Contributions,
        budget: Budget,
        settings: Settings,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> Outcome:
        """Return the best schemes whose own plans are within the budget.

        Raises:
            UserError: [budget] Not even the head alone fits.
        """
        self.check(budget)
        self._margin = self._time_margin = 1.0
        self._learn_costs(progress)
        search = Search(self.space, gains, self._cost, budget)
        least = search.look((0,) * len(self.space.units))
        greedy = search.greedy() or least
        made_by_hand = self._by_hand(search)
        finalists: list[Found] = []
        for _ in range(ROUNDS):
            search.evolve(settings, lambda done, total: progress("search", done, total))
            finalists = self._finalists(search, settings.finalists)
            if len(finalists) == settings.finalists:
                break
            search.forget()
        rest = [f for f in made_by_hand if f.genes not in {g.genes for g in finalists}]
        return Outcome(
            finalists or [least],
            greedy,
            self._confirmed(search, rest),
            search.pareto(),
            len(search.seen),
        )

    def _finalists(self, search: Search, count: int) -> list[Found]:
        """Return the best schemes by their own plans, fewer if the first few estimates fail."""
        found: list[Found] = []
        missed = 0
        for scheme in search.ranking():
            if len(found) == count or missed == MOST_MISSED:
                break
            if far_from(scheme.genes, found):
                confirmed = self._confirmed(search, [scheme])
                missed += not confirmed
                found += confirmed
        return found

    def _learn_costs(self, progress: Callable[[str, int, int], None]) -> None:
        """Plan some schemes that have every choice of every block in them.

        With each of them the estimator learns a piece of each block: the same choice in all
        blocks; for each block all biases from it on, before which nothing is trained; and every
        block but the first as a frozen one between trained ones.
        """
        units = self.space.units
        count = max(len(u.menu) for u in units)
        same = [tuple(g if g < len(u.menu) else 0 for u in units) for g in range(count)]
        last = [(0,) * at + same[1][at:] for at in range(1, len(units))]
        between = [
            tuple(g if at in (0, odd) or at % 2 == odd else 0 for at, g in enumerate(same[1]))
            for odd in (0, 1)
        ]
        schemes = list(dict.fromkeys([*same, *last, *between]))
        for done, genes in enumerate(schemes):
            progress("plans", done, len(schemes))
            self.estimator.exact(genes)
        progress("plans", len(schemes), len(schemes))

    def _cost(self, genes: Genes) -> Cost:
        cost = self.estimator.estimate(genes)
        if cost is None or self.estimator.is_exact(genes):
            return self.estimator.exact(genes)
        arena_bytes = int(cost.arena_bytes * self._margin)
        return replace(cost, arena_bytes=arena_bytes, step_ms=cost.step_ms * self._time_margin)

    def _by_hand(self, search: Search) -> list[Found]:
        """Return what one would try without a search, as far as it fits.

        That is all biases, and the last 1, 2, 4, ... blocks up to as many as fit: more is not
        always better, and of deep models all numbers would take long to fine-tune.
        """
        units = self.space.units
        count, all_biases = len(units), Choice(bias=True)
        bias = tuple(u.menu.index(all_biases) if u.biases else 0 for u in units)
        whole = tuple(u.menu.index(Choice(bool(u.biases), u.weights)) for u in units)
        last = [(0,) * (count - n) + whole[count - n :] for n in range(1, count + 1)]
        fitting = [f for f in map(search.look, last) if search.budget.allows(f.cost)]
        some = [f for n, f in enumerate(fitting, 1) if n == len(fitting) or n & (n - 1) == 0]
        return [f for f in (search.look(bias), *some) if search.budget.allows(f.cost)]

    def _confirmed(self, search: Search, schemes: Sequence[Found]) -> list[Found]:
        """Return those schemes that the compiler's own plan finds within the budget."""
        planned = []
        for scheme in schemes:
            estimate = self.estimator.estimate(scheme.genes)
            cost = self.estimator.exact(scheme.genes)
            if estimate is not None:
                # Blocks leave holes in the arena that no sum of pieces shows.
                self._margin = max(self._margin, cost.arena_bytes / estimate.arena_bytes)
            if self.measuring and search.budget.step_ms and search.budget.allows(cost):
                cost = self._measured(scheme.genes, cost)
            planned.append(search.correct(scheme.genes, cost))
        return [f for f in planned if search.budget.allows(f.cost)]

    def _measured(self, genes: Genes, cost: Cost) -> Cost:
        """Return a cost with the time that a scheme takes here, and learn how estimates err."""
        self.measure(genes)
        config = self.space.config(self.base, genes)
        planned = driver.plan_captured(self.captured, config, self.options)
        step_ms = step_time(planned, self.times, self.captured.micro_batches).ms
        self._time_margin = max(self._time_margin, step_ms / cost.step_ms)
        return replace(cost, step_ms=step_ms)


_SGD: Mapping[str, object] = {"optimizer": Optimizer(name="sgd", lr=1.0, weight_decay=0.0)}
"""One step of it changes a tensor by its gradient."""


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        finalists: The best schemes, unlike each other, with the costs that their own plans
            have, the best one by contribution first.
        greedy: What the greedy knapsack found, with its estimated cost.
        by_hand: What one would try without a search, as far as it fits: all biases, numbers
            of last blocks.
        front: What nothing else beats in memory and contribution.
        seen: How many schemes were looked at.
    """

    finalists: list[Found]
    greedy: Found
    by_hand: list[Found]
    front: list[Found]
    seen: int

    @property
    def best(self) -> Found:
        """The scheme of the largest contribution."""
        return self.finalists[0]


def _too_small(budget: Budget, least: Cost) -> Problem:
    wanted = []
    if budget.memory_bytes is not None:
        wanted.append(f"{size(budget.memory_bytes)} (it takes {size(least.memory_bytes)})")
    if budget.step_ms is not None:
        taken = milliseconds(least.step_ms)
        wanted.append(f"{milliseconds(budget.step_ms)} (it takes about {taken})")
    what = f"training the head alone does not fit {' and '.join(wanted)}"
    fix = "allow more, or use a smaller batch (--batch, or accumulate in the configuration)"
    return Problem("budget", what, fix=fix)


def digest_of(data: Mapping[str, np.ndarray]) -> str:
    """Return a short hash of arrays, to tell whether results are of the same data."""
    sha = hashlib.sha256()
    for name in sorted(data):
        sha.update(f"{name} {data[name].dtype} {data[name].shape}".encode())
        sha.update(np.ascontiguousarray(data[name]).tobytes())
    return sha.hexdigest()[:16]
