"""A case is measured from end to end, each peer in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import measuring, peers, process
from tests.bench.cases import Case
from tests.bench.peers import PEERS, Unavailable, interpreter
from tests.bench.results import losses_agree
from tests.bench.values import write_case

TINY = Case("W5", "sparse", {"resolution": 32})


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SCRATCH", tmp_path)
    monkeypatch.setattr(peers, "SCRATCH", tmp_path)


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_peers_take_turns_on_the_same_work(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    settings = measuring.Settings(
        threads=1,
        rounds=2,
        seconds=0.0,
        least=3,
        interpreters={"tensorflow": str(nothing)},
    )
    chosen = [PEERS[n] for n in ("pockc", "pockc-onnx", "torch", "tensorflow")]
    found = measuring.measure_case(TINY, chosen, settings)
    gone = found.peers.pop()
    assert gone.failed == f"there is no interpreter {nothing}"
    assert losses_agree(found.peers)
    assert not (tmp_path / "cases" / TINY.key).exists()
    for m in found.peers:
        assert [len(t) for t in m.turns_ms] == [3, 3]
        assert 0 < m.min_ms <= m.median_ms <= m.p90_ms
        assert 0 < m.peak_bytes <= m.peak_with_start_bytes
        assert m.first_step_s > 0
        assert m.artifact_bytes > 0
    ours, onnx, eager = found.peers
    assert ours.planned_bytes > 0
    assert ours.compile_s > 0
    assert onnx.compile_s > 0
    assert onnx.version == ours.version
    # PyTorch is hundreds of megabytes; what runs an artifact is NumPy and a few files.
    assert ours.runtime_bytes < eager.runtime_bytes / 2


@pytest.mark.needs_torch
def test_a_worker_that_ends_says_its_last_words(tmp_path: Path) -> None:
    write_case(TINY, tmp_path)
    job = process.Job(interpreter("", {}, print), tmp_path, threads=1)
    with pytest.raises(Unavailable, match=r"ended with status 1: .*no\.pock"):
        process.Process(PEERS["pockc"], job, artifact=str(tmp_path / "no.pock"))


def test_a_net_that_a_peer_does_not_have_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="llama is not defined for it"):
        measuring._start(
            Case("llama"),
            PEERS["tensorflow"],
            tmp_path,
            measuring.Settings(),
            measuring.Measured("tensorflow"),
        )


def test_an_environment_that_pip_cannot_make_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("POCKC_BENCH_TENSORFLOW", raising=False)
    monkeypatch.setitem(peers.PACKAGES, "tensorflow", ("./no-such-package",))
    told: list[str] = []
    with pytest.raises(Unavailable, match="failed: "):
        interpreter("tensorflow", {}, told.append)
    assert told
