"""Offsets in the arena: blocks that are alive together must not overlap.

This is dynamic storage allocation with known lifetimes (NP-hard). Several greedy orders are
tried, each with first and best fit (Pisarchyk & Lee, Efficient Memory Management for Deep
Neural Net Inference, 2020), and the best one is improved by a search that moves whatever
reaches to the top of the arena to the front of the order. The search counts its work and
does not look at a clock, so that equal blocks always get equal offsets. It stops at the lower
bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pockc.plan.liveness import Block, live_bytes
from pockc.plan.types import ALIGN_BYTES

SEARCH_PLACEMENTS = 60_000
"""Blocks that the search may place in all, about 20 us each."""


@dataclass(frozen=True, slots=True)
class Placement:
    """An offset for each block and the arena they need together."""

    offsets: tuple[int, ...]
    nbytes: int


def aligned(nbytes: int) -> int:
    """Round up to the alignment of places."""
    return -(-nbytes // ALIGN_BYTES) * ALIGN_BYTES


def place(blocks: Sequence[Block]) -> Placement:
    """Return offsets at which no two blocks that are alive at one time overlap."""
    if not blocks:
        return Placement((), 0)
    problem = _Problem(blocks)
    best = _Attempt((), np.zeros(0, np.int64), np.iinfo(np.int64).max)
    for order in _orders(problem):
        for best_fit in (False, True):
            attempt = problem.place(order, best_fit=best_fit)
            if attempt.top < best.top:
                best = attempt
            if best.top <= problem.bound:
                return best.placement()
    return _improve(problem, best).placement()


@dataclass(frozen=True, eq=False)
class _Attempt:
    order: tuple[int, ...]
    offsets: np.ndarray
    top: int
    best_fit: bool = False

    def placement(self) -> Placement:
        return Placement(tuple(int(o) for o in self.offsets), self.top)


class _Problem:
    """The blocks as arrays; times and aligned sizes in bytes."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.start = np.array([b.start for b in blocks], np.int64)
        self.end = np.array([b.end for b in blocks], np.int64)
        self.size = np.array([aligned(b.nbytes) for b in blocks], np.int64)
        rounded = [Block(b.key, aligned(b.nbytes), b.start, b.end) for b in blocks]
        self.live = live_bytes(rounded)
        self.bound = int(self.live.max())

    def place(self, order: Sequence[int], *, best_fit: bool) -> _Attempt:
        """Place the blocks one by one, each into a gap between those it meets in time.

        First fit takes the lowest gap, best fit the tightest. Arrays in the order of placement
        keep what is placed so far in one piece.
        """
        chosen = np.asarray(order)
        start, end, size = self.start[chosen], self.end[chosen], self.size[chosen]
        low = np.zeros(len(chosen), np.int64)
        for i in range(len(chosen)):
            meets = np.flatnonzero((start[:i] <= end[i]) & (end[:i] >= start[i]))
            low[i] = _fit(low[meets], size[meets], size[i], best_fit=best_fit)
        offsets = np.empty_like(low)
        offsets[chosen] = low
        top = int((low + size).max())
        return _Attempt(tuple(order), offsets, top, best_fit)


def _fit(low: np.ndarray, size: np.ndarray, need: int, *, best_fit: bool) -> int:
    """Return an offset for `need` bytes beside the given ranges, which may overlap."""
    if not len(low):
        return 0
    by_offset = np.argsort(low, kind="stable")
    low = low[by_offset]
    reach = np.maximum.accumulate(low + size[by_offset])
    gap_start = np.concatenate(([0], reach[:-1]))
    gap = low - gap_start
    fits = np.flatnonzero(gap >= need)
    if not len(fits):
        return int(reach[-1])
    return int(gap_start[fits[np.argmin(gap[fits])] if best_fit else fits[0]])


def _orders(problem: _Problem) -> Iterator[Sequence[int]]:
    """Yield the greedy orders, the ones that are best most often first."""
    start, end, size = problem.start, problem.end, problem.size
    life = end - start + 1
    yield np.lexsort((start, -size)).tolist()
    yield np.lexsort((start, -size, -life)).tolist()
    yield np.lexsort((start, -size * life)).tolist()
    yield _by_breadth(problem)
    yield np.lexsort((-size, -life, start)).tolist()
    yield np.lexsort((-size, -life, -end)).tolist()
    yield _around_peak(problem)


def _by_breadth(problem: _Problem) -> list[int]:
    """Take the times by bytes alive then, most first; within one, the largest blocks first."""
    order: dict[int, None] = {}
    for time in np.argsort(-problem.live, kind="stable"):
        alive = np.flatnonzero((problem.start <= time) & (problem.end >= time))
        for block in alive[np.argsort(-problem.size[alive], kind="stable")]:
            order.setdefault(int(block))
    return list(order)


def _around_peak(problem: _Problem) -> list[int]:
    """Take the blocks alive at the peak, longest first, then the others by their distance."""
    peak = int(np.argmax(problem.live))
    distance = np.maximum(0, np.maximum(problem.start - peak, peak - problem.end))
    life = problem.end - problem.start
    return np.lexsort((-problem.size, -life, distance)).tolist()  # type: ignore[no-any-return]


def _improve(problem: _Problem, best: _Attempt) -> _Attempt:
    """Move blocks that reach to the top to the front of the order while that helps."""
    budget = SEARCH_PLACEMENTS // len(problem.size)
    current, seen = best, {best.order}
    for _ in range(budget):
        if best.top <= problem.bound:
            break
        order = _promoted(problem, current, seen)
        if order is None:
            break
        seen.add(order)
        attempt = problem.place(order, best_fit=current.best_fit)
        if attempt.top <= current.top:
            current = attempt
        if attempt.top < best.top:
            best = attempt
    return best


def _promoted(
    problem: _Problem, attempt: _Attempt, seen: set[tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return a new order in which a block at the top comes earlier, None if all were tried."""
    reach = attempt.offsets + problem.size
    highest = [i for i in attempt.order if reach[i] == attempt.top]
    for block in highest:
        at = attempt.order.index(block)
        rest = attempt.order[:at] + attempt.order[at + 1 :]
        for target in (0, at // 2, max(0, at - 1)):
            order = (*rest[:target], block, *rest[target:])
            if order not in seen:
                return order
    return None
