"""Times of unmeasured kernels follow those that were measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pockc.profile.work import Work
from pockc.search.kernel_model import Basis, KernelModel, Timed
from pockc.search.machines import Peaks
from pockc.search.rates import RATES

PEAKS = Peaks(gflops=100.0, gbs=10.0)
CACHES = 1 << 40  # what is in memory takes a rate of its own
KIND = "matmul"


def works(count: int, kind: str = KIND, seed: int = 0) -> list[Work]:
    """Return kernels from 10^5 to 10^9 operations, at 0.5 to 50 operations a byte."""
    rng = np.random.default_rng(seed)
    flops = 10 ** rng.uniform(5, 9, count)
    nbytes = flops / 10 ** rng.uniform(-0.3, 1.7, count)
    return [Work(kind, int(f), 0, int(b)) for f, b in zip(flops, nbytes, strict=True)]


def true_ms(work: Work) -> float:
    """Return what a machine of 60 GFLOP/s and 4 GB/s takes, with 5 us for the call."""
    return 5e-3 + work.flops / 60e6 + work.nbytes / 4e6


def measured(some: list[Work], noise: float = 0.0, seed: int = 1) -> list[Timed]:
    rng = np.random.default_rng(seed)
    return [Timed(true_ms(w) * float(np.exp(noise * rng.standard_normal())), w) for w in some]


def error_of_sum(model: KernelModel, some: list[Work]) -> float:
    return sum(map(model.ms, some)) / sum(map(true_ms, some)) - 1


def errors(model: KernelModel, some: list[Work]) -> np.ndarray:
    return np.array([model.ms(w) / true_ms(w) - 1 for w in some])


def test_rates_of_measured_kernels_hold_for_others() -> None:
    unseen = works(200, seed=7)
    model = KernelModel(PEAKS, CACHES, measured(works(40)))
    assert abs(error_of_sum(model, unseen)) < 0.03
    assert np.quantile(np.abs(errors(model, unseen)), 0.9) < 0.1
    assert abs(error_of_sum(KernelModel(PEAKS, CACHES, ()), unseen)) > 0.15


def test_kernels_that_something_else_disturbed_count_little() -> None:
    good = measured(works(40), noise=0.05)
    bad = [Timed(8 * t.ms, t.work) if i % 8 == 3 else t for i, t in enumerate(good)]
    assert abs(error_of_sum(KernelModel(PEAKS, CACHES, bad), works(200, seed=7))) < 0.2


def test_no_time_is_below_that_of_less_work_of_the_same_kind() -> None:
    # Without noise a fit might take a negative rate for what the kernels have in common.
    model = KernelModel(PEAKS, CACHES, measured(works(3), noise=0.5))
    sizes = [10**n for n in range(3, 11)]
    for kind in (KIND, "reduction"):
        times = [model.ms(Work(kind, n, n, n)) for n in sizes]
        assert all(t > 0 for t in times)
        assert all(b > a for a, b in itertools.pairwise(times))


def test_one_measured_kernel_moves_its_like_more_than_others() -> None:
    before = KernelModel(PEAKS, CACHES, ())
    work = works(1)[0]
    slow = KernelModel(PEAKS, CACHES, [Timed(3 * before.ms(work), work)])
    assert slow.ms(work) > 1.5 * before.ms(work)
    other = Work("reduction", 0, work.flops, work.nbytes)
    assert slow.ms(other) > before.ms(other)
    assert slow.basis(KIND) is Basis.FITTED
    assert slow.basis("reduction") is Basis.USUAL


def test_neighbours_of_slow_kernels_are_slow() -> None:
    some = works(300)
    taken = [Timed(t.ms * (2 if t.work.flops < 10**7 else 1), t.work) for t in measured(some)]
    unseen = works(200, seed=7)
    small = [w for w in unseen if w.flops < 3 * 10**6]
    large = [w for w in unseen if w.flops > 3 * 10**7]
    model = KernelModel(PEAKS, CACHES, taken)
    assert abs(sum(map(model.ms, small)) / sum(map(true_ms, small)) / 2 - 1) < 0.2
    assert abs(error_of_sum(model, large)) < 0.15


@pytest.mark.parametrize("kind", sorted(RATES))
def test_usual_times_follow_the_machine(kind: str) -> None:
    work = Work(kind, 10**9, 10**8, 10**8)
    slow, fast = (KernelModel(Peaks(10.0 * n, 2.0 * n), CACHES, ()).ms(work) for n in (1, 10))
    assert slow == pytest.approx(10 * fast, rel=0.01)
    # Nobody is much faster than arithmetic or memory allows.
    assert slow > 0.3 * max(work.flops / 10e6, 0)


def test_a_kind_that_nobody_knows_has_a_time() -> None:
    assert KernelModel(PEAKS, CACHES, ()).ms(Work("unheard of", 10, 10, 10)) > 0
