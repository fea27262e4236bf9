"""Offsets in the arena: blocks that are alive together must not overlap.

This is dynamic storage allocation with known lifetimes (NP-hard). Several greedy orders are
tried, each with first and best fit (Pisarchyk & Lee, Efficient Memory Management for Deep
Neural Net Inference, 2020), and the best one is improved by a random search that moves what
reaches above the lower bound forward in the order. The search counts its work and does not
look at a clock, and its random numbers are always the same, so that equal blocks get equal
offsets. It stops at the lower bound.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pockc.plan.liveness import Block, live_bytes
from pockc.plan.types import ALIGN_BYTES

SEARCH_PLACEMENTS = 60_000
"""Blocks that the search may place in all, about 8 us each."""
NO_LIMIT = int(np.iinfo(np.int64).max)
WORSE_TAKEN = 0.02
"""Share of the changes to a worse arena that the search goes on from."""
MOST_LOST = 200
"""Changes after which the search goes back to the best order."""


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
    best = _Attempt((), np.zeros(0, np.int64), NO_LIMIT)
    for order in _orders(problem):
        for best_fit in (False, True):
            attempt = problem.place(order, best_fit=best_fit)
            if attempt is not None and attempt.top < best.top:
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
        self.placements = 0
        """Blocks placed so far, in all attempts."""

    def meets(self, block: int) -> np.ndarray:
        """Return for each block whether it is alive together with a given one."""
        met: np.ndarray = (self.start <= self.end[block]) & (self.end >= self.start[block])
        return met

    def place(
        self,
        order: Sequence[int],
        *,
        best_fit: bool,
        limit: int = NO_LIMIT,
        like: _Attempt | None = None,
    ) -> _Attempt | None:
        """Place the blocks one by one, each into a gap between those it meets in time.

        First fit takes the lowest gap, best fit the tightest. Arrays in the order of placement
        keep what is placed so far in one piece.

        Args:
            order: The blocks.
            best_fit: Which gap is taken.
            limit: Give up, and return None, once a block reaches above it.
            like: Another placement in the same manner: as long as its order is the same, so
                are the offsets.
        """
        chosen = np.asarray(order)
        start, end, size = self.start[chosen], self.end[chosen], self.size[chosen]
        low = np.zeros(len(chosen), np.int64)
        same = 0
        if like is not None:
            differs = np.flatnonzero(chosen != np.asarray(like.order))
            same = int(differs[0]) if len(differs) else len(chosen)
            low[:same] = like.offsets[chosen[:same]]
        for i in range(same, len(chosen)):
            meets = np.flatnonzero((start[:i] <= end[i]) & (end[:i] >= start[i]))
            low[i] = _fit(low[meets], size[meets], size[i], best_fit=best_fit)
            self.placements += 1
            if low[i] + size[i] > limit:
                return None
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
    """Change the order around the blocks that reach above the bound, while that helps.

    A change that leaves the arena as large as it was is kept: it leads to orders that no
    single change reaches. So is a worse one now and then, until the search is lost and goes
    back to the best order.
    """
    rng = random.Random(0)
    current, lost = best, 0
    problem.placements = 0
    while best.top > problem.bound and problem.placements < SEARCH_PLACEMENTS:
        problem.placements += 1  # so that orders without a change come to an end too
        if lost == MOST_LOST:
            current, lost = best, 0
        order = _changed(problem, current, rng)
        limit = NO_LIMIT if rng.random() < WORSE_TAKEN else current.top
        attempt = problem.place(order, best_fit=current.best_fit, limit=limit, like=current)
        lost += 1
        if attempt is None:
            continue
        current = attempt
        if attempt.top < best.top:
            best, lost = attempt, 0
    return best


def _changed(problem: _Problem, attempt: _Attempt, rng: random.Random) -> list[int]:
    """Return an order in which a block that reaches above the bound may come to lie lower.

    Either it, or one of those that it stands on, moves forward in the order; or something that
    it meets moves behind it; or any two blocks change places.
    """
    order = list(attempt.order)
    reach = attempt.offsets[order] + problem.size[order]
    place = int(rng.choice(np.flatnonzero(reach > problem.bound)))
    block, move = order[place], rng.random()
    if move < 0.5:
        place = order.index(_bearer(problem, attempt, block, rng))
        end = len(order) if rng.random() < 0.3 else place + 1
        order.insert(rng.randrange(end), order.pop(place))
    elif move < 0.75:
        order.insert(rng.randrange(place + 1), order.pop(place))
    elif move < 0.9 and place > 0:
        before = order[:place]
        meets = np.flatnonzero(problem.meets(block)[before])
        if len(meets):
            order.insert(place, order.pop(int(rng.choice(meets))))
    else:
        one, other = rng.randrange(len(order)), rng.randrange(len(order))
        order[one], order[other] = order[other], order[one]
    return order


def _bearer(problem: _Problem, attempt: _Attempt, block: int, rng: random.Random) -> int:
    """Return a block, or one that it stands on, or one that this one stands on, and so on."""
    while True:
        touches = attempt.offsets + problem.size == attempt.offsets[block]
        under = np.flatnonzero(touches & problem.meets(block))
        if not len(under) or rng.random() > 0.6:
            return block
        block = int(rng.choice(under))
