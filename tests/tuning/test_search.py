"""The search takes what is faster by more than noise, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pockc.backends.schedule import Schedule
from pockc.backends.tvm import BACKEND, targets
from pockc.tuning.bench import FILL, local_times
from pockc.tuning.search import Outcome, Setting, tune_kernel
from tests.tuning.test_candidates import CASES

pytestmark = [pytest.mark.needs_tvm, pytest.mark.slow]


def _search(cost: Callable[[str, int], int]) -> tuple[Outcome, dict[str, Schedule]]:
    """Search with made-up times: `cost(symbol, how many came before)`."""
    given, _ = CASES["depthwise"]
    (kernel,) = BACKEND.select(given.graph, "host", 2).kernels.values()

    def times(path: Path, entries: Sequence[str], threads: int) -> list[int]:
        assert path.exists()
        assert threads == 2
        return [cost(name, i) for i, name in enumerate(entries)]

    setting = Setting(BACKEND, targets.get("host"), 1 << 20, times)
    known = {k.symbol: k.schedule for k in BACKEND.candidates(kernel)}
    known[kernel.symbol] = Schedule()
    return tune_kernel(kernel, setting), known


@pytest.mark.parametrize("noise", [0, 400_000])
def test_the_default_stays_unless_a_candidate_is_clearly_faster(noise: int) -> None:
    found, _ = _search(lambda _, i: 1_000_000 + (noise if i % 7 == 3 else 0) - i % 2 * 20_000)
    assert found.schedule == Schedule()
    assert found.tuned_us == found.default_us


def test_a_candidate_that_is_clearly_faster_wins_and_its_gain_is_told() -> None:
    _, known = _search(lambda *_: 1_000_000)
    fast = next(name for name, s in known.items() if s == Schedule(columns=4))

    def cost(name: str, i: int) -> int:
        return (800_000 if name == fast else 1_000_000) + (300_000 if i % 9 == 4 else 0)

    found, _ = _search(cost)
    assert found.schedule == Schedule(columns=4)
    assert found.tuned_us / found.default_us == pytest.approx(0.8, abs=0.01)


def test_candidates_run_on_this_machine_with_the_runtimes_own_threads() -> None:
    seen: list[Path] = []
    given, _ = CASES["product"]
    (kernel,) = BACKEND.select(given.graph, "host", 2).kernels.values()

    def times(path: Path, entries: Sequence[str], threads: int) -> list[int]:
        seen.append(path)
        assert FILL not in entries
        found = local_times(path, entries, threads)
        assert len(found) == len(entries)
        assert all(t > 0 for t in found)
        return found

    found = tune_kernel(kernel, Setting(BACKEND, targets.get("host"), 1 << 20, times))
    assert seen
    assert found.candidates > 3
    assert 0 < found.tuned_us <= found.default_us
