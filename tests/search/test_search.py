"""The costs of schemes are those of their artifacts, and a search keeps to its budget."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc import driver
from pockc.errors import UserError
from pockc.frontend.captured import Captured
from pockc.profile.work import work_of
from pockc.scheme import Config, load_config
from pockc.search.contribution import Contributions, from_proxy
from pockc.search.cost import Cost, cost_of
from pockc.search.evolve import Budget, Search, Settings
from pockc.search.kernel_model import Basis, Timed
from pockc.search.kernel_times import KernelTimes
from pockc.search.machines import Peaks
from pockc.search.measuring import measure
from pockc.search.output import config_text
from pockc.search.prediction import step_time
from pockc.search.space import Choice, Space, Unit
from pockc.search.store import Store
from pockc.search.times_file import Measured, kernel_key
from tests.search.sessions import OPTIONS, session_of

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


def test_estimates_of_unseen_schemes_are_near_their_plans() -> None:
    _, session = session_of("resnet")
    rng, known = random.Random(0), session.estimator
    errors = []
    for _ in range(60):
        genes = tuple(rng.choice((0, 1, 2)) for _ in session.space.units)
        if known.is_exact(genes):
            continue
        estimated, planned = known.estimate(genes), known.exact(genes)
        if estimated is not None:
            assert estimated.state_bytes == planned.state_bytes
            errors.append(estimated.memory_bytes / planned.memory_bytes - 1)
    assert len(errors) >= 10
    assert max(map(abs, errors)) < 0.05


def test_a_learned_scheme_is_estimated_without_a_plan() -> None:
    _, session = session_of("resnet")
    genes = (0, 1, 1)
    assert session.estimator.estimate(genes) is None
    planned = session.estimator.exact(genes)
    estimated = session.estimator.estimate(genes)
    assert estimated is not None
    assert estimated.memory_bytes == pytest.approx(planned.memory_bytes, rel=0.03)
    assert estimated.step_ms == pytest.approx(planned.step_ms)
    assert session.estimator.plans == 1


@pytest.mark.slow
def test_after_the_first_plans_no_scheme_needs_another_for_its_estimate() -> None:
    _, session = session_of("resnet")
    session._learn_costs(lambda *_: None)
    rng, plans = random.Random(0), session.estimator.plans
    units = session.space.units
    for _ in range(200):
        genes = tuple(rng.randrange(len(u.menu)) for u in units)
        first = rng.randrange(len(units) + 1)
        assert session.estimator.estimate((0,) * first + genes[first:]) is not None
    assert session.estimator.plans == plans


def _toy() -> tuple[Space, Contributions]:
    menu = (Choice(), Choice(bias=True), Choice(True, ("w",)), Choice(True, ("w", "v")))
    units = tuple(Unit(str(i), ("b",), ("w", "v"), menu) for i in range(4))
    gains = tuple((0.0, 1.0 + i, 2.5 + (i * 7) % 3, 4.0 + i % 2) for i in range(4))
    return Space(units, ("head",)), Contributions(gains)


def _toy_cost(genes: tuple[int, ...]) -> Cost:
    # Depends on the first trained block, as the real one does.
    first = next((i for i, g in enumerate(genes) if g), len(genes))
    return Cost(sum((0, 1, 5, 9)[g] for g in genes), 3 * (len(genes) - first), sum(genes))


@pytest.mark.parametrize("limit", [4, 12, 20, 30, 60])
def test_evolution_finds_the_best_scheme_and_greedy_is_no_better(limit: int) -> None:
    space, gains = _toy()
    budget = Budget(memory_bytes=limit)
    everything = itertools.product(range(4), repeat=4)
    best = max(gains.of(g) for g in everything if budget.allows(_toy_cost(g)))
    search = Search(space, gains, _toy_cost, budget)
    greedy = search.greedy()
    found = search.evolve(Settings(population=40, generations=30))
    assert found is not None
    assert greedy is not None
    assert budget.allows(found.cost)
    assert found.contribution == pytest.approx(best)
    assert greedy.contribution <= found.contribution


def test_a_search_keeps_to_its_budget_and_its_yaml_trains_what_was_found() -> None:
    _, session = session_of("resnet")
    ones = {p: np.ones(i.shape[:1]) for p, i in session.captured.parameters.items()}
    gains = from_proxy(session.space, session.captured, ones)
    full = session.estimator.exact(tuple(len(u.menu) - 1 for u in session.space.units))
    head = session.estimator.exact((0, 0, 0))
    middle = (full.memory_bytes + head.memory_bytes) // 2
    outcome = session.search(gains, Budget(middle), Settings(population=8, generations=3))
    assert head.memory_bytes < outcome.best.cost.memory_bytes <= middle
    config = session.space.config(session.base, outcome.best.genes)
    again = load_config_text(config_text(config))
    planned = driver.plan_captured(session.captured, again, OPTIONS)
    assert cost_of(planned, session.times).memory_bytes == outcome.best.cost.memory_bytes


def load_config_text(text: str) -> object:
    import yaml

    return load_config(yaml.safe_load(text))


def test_a_budget_below_the_head_is_an_error() -> None:
    _, session = session_of("resnet")
    gains = Contributions(tuple((0.0,) * len(u.menu) for u in session.space.units))
    with pytest.raises(UserError, match=r"\[budget\] training the head alone"):
        session.search(gains, Budget(10), Settings())


def test_results_are_kept_one_by_one_and_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    store = Store.open(path, {"epochs": 1})
    store.put("head", {"score": 0.5})
    assert json.loads(path.read_text())["results"] == {"head": {"score": 0.5}}
    assert Store.open(path, {"epochs": 1}).results == {"head": {"score": 0.5}}
    with pytest.raises(UserError, match="epochs 1 and not 2"):
        Store.open(path, {"epochs": 2})
    path.write_text("{")
    with pytest.raises(UserError, match=r"\[contributions\]"):
        Store.open(path, {"epochs": 1})


def test_measured_kernels_keep_their_time_and_tell_of_others(tmp_path: Path) -> None:
    _, session = session_of("resnet")
    planned = driver.plan_captured(session.captured, session.base, OPTIONS)
    entry, layout = planned.entries[0], planned.memory.entries[0]
    nothing = KernelTimes(session.times.target, 1, Measured(peaks=Peaks(50.0, 10.0)))
    step = next(s for s in layout.steps if s.kernel != "pk_copy")
    work = work_of(entry.graph, step.kernel, step.node)
    slow = {step.kernel: Timed(7.5, work)}
    times = KernelTimes(session.times.target, 1, Measured(slow, Peaks(50.0, 10.0)))
    assert times.step_ms(entry.graph, step) == slow[step.kernel].ms
    predicted, usual = (step_time(planned, t) for t in (times, nothing))
    assert usual.kernels[Basis.MEASURED] == 0
    assert usual.share(Basis.USUAL) == pytest.approx(1)
    assert predicted.kernels[Basis.MEASURED] == 1
    assert predicted.ms > 2 * usual.ms
    assert sum(predicted.by_basis.values()) == pytest.approx(predicted.ms)
    path = tmp_path / "times.json"
    times.write(path)
    again = KernelTimes.read(times.target, 1, [path])
    assert again.measured == times.measured
    assert step_time(planned, again).ms == pytest.approx(predicted.ms)
    with pytest.raises(UserError, match=r"\[kernel-times\].*has no times of"):
        KernelTimes.read(times.target, 2, [path])


@pytest.mark.slow
def test_a_measured_step_takes_what_was_predicted_and_rests_on_nothing_else() -> None:
    _, session = session_of("mobilenet")
    genes = tuple(len(u.menu) - 1 for u in session.space.units)
    config = session.space.config(session.base, genes)
    planned = driver.plan_captured(session.captured, config, OPTIONS)
    known = Measured()
    known.add(measure(session.captured, config, OPTIONS))
    predicted = step_time(planned, KernelTimes(session.times.target, 1, known))
    assert predicted.share(Basis.MEASURED) == 1
    assert set(planned.kernels) >= {k for k in known.kernels if not k.startswith("pk_copy")}
    assert known.peaks is not None


def test_schemes_that_run_slower_than_predicted_are_not_within_a_budget_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, session = session_of("resnet")
    nothing = KernelTimes(session.times.target, 1, Measured(peaks=Peaks(50.0, 10.0)))
    session = replace(session, times=KernelTimes(nothing.target, 1, nothing.measured))
    ran = []

    def twice_as_slow(captured: Captured, config: Config, options: driver.Options) -> Measured:
        ran.append(config)
        planned = driver.plan_captured(captured, config, options)
        entry, layout = planned.entries[0], planned.memory.entries[0]
        calls = [(s, work_of(entry.graph, s.kernel, s.node)) for s in layout.steps]
        return Measured(
            {
                kernel_key(s.kernel, w): Timed(2 * nothing.step_ms(entry.graph, s), w)
                for s, w in calls
            }
        )

    monkeypatch.setattr("pockc.search.session.measure", twice_as_slow)
    session.measuring = True
    ones = {p: np.ones(i.shape[:1]) for p, i in session.captured.parameters.items()}
    gains = from_proxy(session.space, session.captured, ones)
    whole = session.estimator.exact(tuple(len(u.menu) - 1 for u in session.space.units))
    budget = Budget(step_ms=1.2 * whole.step_ms)
    outcome = session.search(gains, budget, Settings(population=8, generations=3))
    assert ran
    for found in (outcome.best, *outcome.finalists):
        config = session.space.config(session.base, found.genes)
        planned = driver.plan_captured(session.captured, config, OPTIONS)
        assert step_time(planned, nothing).ms * 2 <= 1.2 * whole.step_ms * 1.001


def test_kernels_of_another_machine_are_not_measured_here() -> None:
    _, session = session_of("resnet")
    here = session.times.target.arch
    other = "rpi4" if here == "x86_64" else "x86-64-v3"
    with pytest.raises(UserError, match=r"(?s)\[measure\].*pockc profile .*--on"):
        measure(session.captured, session.base, driver.Options(target=other))
