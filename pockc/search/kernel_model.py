"""Times of kernels that were not measured, from the work that they do.

A kernel takes the time of a call, of its products, of its other arithmetic and of its bytes:

    ms = call + flops / F + other_flops / O + nbytes / B + (nbytes that no cache holds) / M

The five numbers belong to a kind of kernels (`Work.kind`) and begin as usual shares of what
the machine reaches at most (`rates.py`). Where kernels were measured, each kind's are fitted to
them: least squares of relative errors, none below 0, long kernels counted more and large
errors less (Huber 1964), and drawn to the usual shares, all slower or faster by one factor, so
that a few kernels do not decide what they cannot know. What is left, how much slower than that
the measured kernels of a similar size are, is handed on to their neighbours (Nadaraya-Watson,
over the logarithms of the amounts of work).
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from pockc.profile.work import Work
from pockc.search.machines import Peaks
from pockc.search.rates import RATES, USUAL

Array = np.ndarray

PULL = 0.5
"""Weight of the usual shares beside one measured kernel's relative error."""
HUBER = 0.35
"""Relative error from which a kernel counts less."""
REACH = 0.5
"""How far a neighbour reaches, in natural logarithms of amounts of work."""
DOUBT = 1.0
"""Weight of "as fitted" beside one neighbour of the same size."""
NEAR, FAR = 1 / 8, 1 / 2
"""Parts of the last cache: a kernel finds its bytes there if they are fewer than the one, and
none of them if they are more than the other, for other kernels run in between."""
_FITS, _SWEEPS = 10, 100


class Basis(enum.Enum):
    """What the time of a kernel rests on."""

    MEASURED = "measured"
    FITTED = "fitted"  # to measured kernels of its kind
    USUAL = "usual"  # usual rates of its kind, as a share of the machine's peaks


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured kernel: its time, and what it did in it."""

    ms: float
    work: Work


@dataclass(frozen=True)
class _Kind:
    """What is known of a kind: its coefficients, and how far measured kernels are from them."""

    coefficients: Array
    amounts: Array
    residuals: Array


class KernelModel:
    """Times of kernels on one machine."""

    def __init__(self, peaks: Peaks, cache_bytes: int, measured: Iterable[Timed]) -> None:
        """Fit what was measured.

        Args:
            peaks: What the machine reaches at most.
            cache_bytes: What the last cache before the memory holds.
            measured: Kernels of that machine, each once.
        """
        self.peaks, self.cache_bytes = peaks, cache_bytes
        kinds: dict[str, list[Timed]] = defaultdict(list)
        for timed in measured:
            kinds[timed.work.kind].append(timed)
        self._scale = self._common_scale([t for some in kinds.values() for t in some])
        self._kinds = {kind: self._fit(kind, some) for kind, some in sorted(kinds.items())}

    def ms(self, work: Work) -> float:
        """Return the time that a kernel is expected to take."""
        terms = self.terms(work)
        kind = self._kinds.get(work.kind)
        if kind is None:
            return float(terms @ self._usual(work.kind)) * self._scale
        distance = ((kind.amounts - _amounts(work)) ** 2).sum(1)
        near = np.exp(-distance / (2 * REACH**2))
        residual = float(near @ kind.residuals / (near.sum() + DOUBT))
        return float(terms @ kind.coefficients) * math.exp(residual)

    def basis(self, kind: str) -> Basis:
        """Return what times of a kind rest on."""
        return Basis.FITTED if kind in self._kinds else Basis.USUAL

    def terms(self, work: Work) -> Array:
        """Return the ms that each part of a work takes at the machine's peaks."""
        flop, byte = 1e-6 / self.peaks.gflops, 1e-6 / self.peaks.gbs
        filled = work.nbytes / self.cache_bytes
        far = work.nbytes * min(1.0, max(0.0, (filled - NEAR) / (FAR - NEAR)))
        arithmetic = (work.flops * flop, work.other_flops * flop)
        return np.array([1e-3, *arithmetic, work.nbytes * byte, far * byte])

    @staticmethod
    def _usual(kind: str) -> Array:
        return np.array(astuple(RATES.get(kind, USUAL)))

    def _common_scale(self, measured: Sequence[Timed]) -> float:
        """Return how much slower than usual a machine is, the same for all kinds."""
        if not measured:
            return 1.0
        usual = np.array([self.terms(t.work) @ self._usual(t.work.kind) for t in measured])
        taken = np.array([t.ms for t in measured])
        return float(np.exp(_weighted_median(np.log(taken / usual), taken)))

    def _fit(self, kind: str, measured: Sequence[Timed]) -> _Kind:
        taken = np.array([t.ms for t in measured])
        terms = np.array([self.terms(t.work) for t in measured])
        prior = self._usual(kind) * self._scale
        coefficients = fitted(terms * prior, taken) * prior
        residuals = np.log(taken / (terms @ coefficients))
        return _Kind(coefficients, np.array([_amounts(t.work) for t in measured]), residuals)


def fitted(terms: Array, taken: Array, pull: float = PULL) -> Array:
    """Return factors of usual coefficients, all about 1, that explain measured times.

    Args:
        terms: (kernels, coefficients), ms by the usual coefficients.
        taken: (kernels,), measured ms.
        pull: See `PULL`.
    """
    relative = terms / taken[:, None]
    longer = np.sqrt(taken / taken.mean())
    weights = longer
    factors = np.ones(terms.shape[1])
    for _ in range(_FITS):
        gram = (relative * weights[:, None]).T @ relative + pull * np.eye(len(factors))
        wanted = (relative * weights[:, None]).sum(0) + pull
        for _ in range(_SWEEPS):
            for j in range(len(factors)):
                step = (wanted[j] - gram[j] @ factors) / gram[j, j]
                factors[j] = max(0.0, factors[j] + step)
        error = np.abs(relative @ factors - 1)
        weights = longer * np.minimum(1.0, HUBER / np.maximum(error, 1e-12))
    return factors


def _amounts(work: Work) -> Array:
    """Return the logarithms of what a kernel does, for distances between kernels."""
    return np.log(np.array([work.flops, work.other_flops, work.nbytes], float) + 1024.0)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
