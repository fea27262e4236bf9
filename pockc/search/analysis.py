"""Contribution analysis of a model: proxy, fine-tunes, and what follows for the schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pockc.search.contribution import (
    Contributions,
    Trial,
    from_proxy,
    from_results,
    promising,
    trials,
    value_of,
    weight_gains,
)
from pockc.search.finetune import FineTune, analyse
from pockc.search.proxy import Scores
from pockc.search.space import Genes, Space, refined
from pockc.search.store import Store

if TYPE_CHECKING:
    from pockc.search.session import Session

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What is fine-tuned.

    Attributes:
        detail: One of `contribution.DETAILS`.
        measure: One of `contribution.MEASURES`.
        most: How many weights are fine-tuned, the ones that the proxy deems best; the proxy
            says what the others bring. None is all of them.
        processes: How many fine-tunes run at once; None is one per processor.
    """

    detail: str = "weight"
    measure: str = "loss"
    most: int | None = None
    processes: int | None = None


@dataclass
class Analysis:
    """A session's contributions by fine-tunes, kept in a store.

    Attributes:
        session: The model; its space is refined by what is found.
        how: How to fine-tune.
        store: What was found.
        plan: What is fine-tuned.
    """

    session: Session
    how: FineTune
    store: Store
    plan: Plan = field(default_factory=Plan)

    def contributions(self, scores: Scores, progress: Progress) -> Contributions:
        """Return what each choice of the session's space brings, after refining the space.

        Raises:
            UserError: [contributions] The model reports no accuracy.
        """
        session, captured = self.session, self.session.captured
        tried = self._chosen(scores)
        configs = {n: session.space.config(session.base, t.genes) for n, t in tried.items()}
        analyse(configs, self.store, self.how, progress, self.plan.processes)
        results, measure = self.store.results, self.plan.measure
        # Earlier runs may have tried more than this one was asked to.
        known = {n: t for n, t in trials(session.space, "ratio").items() if n in results}
        tried = {**tried, **known}
        gains = weight_gains(captured, scores, tried, results, measure)
        session.take_space(_refined(session, gains))
        return from_results(session.space, captured, scores, tried, results, measure)

    def _chosen(self, scores: Scores) -> Mapping[str, Trial]:
        tried = trials(self.session.space, self.plan.detail)
        if self.plan.most is None:
            return tried
        return promising(tried, self.session.captured, scores, self.plan.most)

    def best_of(self, schemes: Sequence[Genes], progress: Progress) -> dict[Genes, float]:
        """Fine-tune whole schemes; return what each reached, the best one first."""
        space, base = self.session.space, self.session.base
        names = {space.describe(g): g for g in schemes}
        configs = {n: space.config(base, g) for n, g in names.items()}
        how = replace(self.how, repeats=max(self.how.repeats, 2))
        analyse(configs, self.store, how, progress, self.plan.processes)
        results = self.store.results
        reached = {g: value_of(results[n], self.plan.measure) for n, g in names.items()}

        # Few held-out rows make equal accuracies likely; the loss tells them apart.
        def rank(name: str) -> tuple[float, float]:
            return reached[names[name]], -results[name]["loss"]

        return {names[n]: reached[names[n]] for n in sorted(names, key=rank, reverse=True)}


def by_proxy(session: Session, scores: Scores) -> Contributions:
    """Return contributions by a proxy alone, after refining the session's space by it."""
    gains = {w: float(scores[w].sum()) for unit in session.space.units for w in unit.weights}
    session.take_space(_refined(session, gains))
    return from_proxy(session.space, session.captured, scores)


def _refined(session: Session, gains: Mapping[str, float]) -> Space:
    sizes = {n: p.type.size for n, p in session.captured.parameters.items()}
    return refined(session.space, gains, sizes)
