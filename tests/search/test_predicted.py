"""Predicted memory is that of the artifact, byte for byte, whatever is trained and however."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pockc import driver, runtime
from pockc.backends import tvm
from pockc.runtime.manifest import STEP_FILE
from pockc.search.contribution import from_proxy
from pockc.search.cost import Cost
from pockc.search.evolve import Budget, Settings
from pockc.search.session import Session
from pockc.search.space import Genes, Space
from tests.search.sessions import OPTIONS, session_of

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]
NETS = ["mobilenet", "resnet", "bert"]
HOW: dict[str, dict[str, object]] = {
    "plain": {},
    "clipped": {"clip_norm": 1.0},
    "in two parts": {"accumulate": 2},
    "clipped, in two parts": {"clip_norm": 1.0, "accumulate": 2},
    "momentum": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
    "again": {"recompute": ["*"]},
}
properties = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@cache
def session(name: str, how: str) -> Session:
    """Return the search of a net's schemes that are run in one way."""
    wanted = HOW[how]
    if "recompute" in wanted:
        wanted = {"recompute": ["layers.*" if name == "bert" else "blocks.*"]}
    return session_of(name, 4, wanted)[1]


def schemes(space: Space) -> st.SearchStrategy[Genes]:
    """Any first trained block, and any choice of each block from it on."""
    count = len(space.units)
    whole = st.tuples(*(st.integers(0, len(u.menu) - 1) for u in space.units))
    first = st.integers(0, count)
    return st.builds(lambda at, genes: (0,) * at + genes[at:], first, whole)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile as ever, but for the kernels, on which no byte of the memory depends."""

    def linked(_memory: object, _objects: object, job: object, _machine: object) -> tuple[Path]:
        path = Path(job.folder) / STEP_FILE  # type: ignore[attr-defined]
        path.write_bytes(b"no code")
        return (path,)

    monkeypatch.setattr(tvm.TvmBackend, "build", lambda *_: {})
    module = importlib.import_module("pockc.backends.native.emit")  # the package has its name
    monkeypatch.setattr(module, "_link", linked)


def in_manifest(search: Session, genes: Genes) -> tuple[int, int, int]:
    """Return state, arena and runtime as an artifact of a scheme tells them."""
    config = search.space.config(search.base, genes)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scheme.pock"
        memory = driver.build_captured(search.captured, config, path, OPTIONS).memory
    return memory["state_bytes"], memory["arena_bytes"], memory["runtime_bytes"]


def predicted(cost: Cost) -> tuple[int, int, int]:
    return cost.state_bytes, cost.arena_bytes, cost.runtime_bytes


@pytest.mark.slow
@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("name", NETS)
@properties
@given(data=st.data())
def test_predicted_memory_is_the_one_in_the_manifest(name: str, data: st.DataObject) -> None:
    search = session(name, data.draw(st.sampled_from(sorted(HOW))))
    genes = data.draw(schemes(search.space))
    assert predicted(search.estimator.exact(genes)) == in_manifest(search, genes)


@pytest.mark.slow
@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("name", NETS)
def test_what_a_search_returns_has_the_memory_of_its_artifact(name: str) -> None:
    search = session(name, "plain")
    ones = {p: np.ones(i.shape[:1]) for p, i in search.captured.parameters.items()}
    gains = from_proxy(search.space, search.captured, ones)
    full = search.estimator.exact(tuple(len(u.menu) - 1 for u in search.space.units))
    head = search.estimator.exact((0,) * len(search.space.units))
    budget = Budget((full.memory_bytes + head.memory_bytes) // 2)
    how = Settings(population=8, generations=3, finalists=3)
    outcome = search.search(gains, budget, how)
    for found in (*outcome.finalists, *outcome.by_hand):
        assert predicted(found.cost) == in_manifest(search, found.genes)
        assert budget.allows(found.cost)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_an_open_artifact_takes_what_was_predicted(name: str, tmp_path: Path) -> None:
    search = session(name, "plain")
    middle = tuple(len(u.menu) // 2 for u in search.space.units)
    cost = search.estimator.exact(middle)
    path = tmp_path / "scheme.pock"
    config = search.space.config(search.base, middle)
    driver.build_captured(search.captured, config, path, OPTIONS)
    with runtime.load(path, 1) as artifact:
        found = artifact.memory
    assert (cost.state_bytes, cost.arena_bytes) == (found.state_bytes, found.arena_bytes)
    assert found.total_bytes <= cost.memory_bytes


@pytest.mark.usefixtures("without_kernels")
def test_another_scheme_has_another_memory() -> None:
    search = session("resnet", "plain")
    cost = search.estimator.exact((0, 0, 1))
    assert predicted(cost) != in_manifest(search, (0, 1, 1))
