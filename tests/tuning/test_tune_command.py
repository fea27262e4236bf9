"""`pockc tune`: from an artifact to a database, interrupted, resumed, and used by `compile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pockc.cli.app import run
from pockc.cli.tuning import budget_seconds
from pockc.errors import UserError
from pockc.tuning import search
from pockc.tuning.search import Outcome, Setting

MODEL = """\
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 10))
example_inputs = (torch.zeros(128, 64),)
"""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("5", 5)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "0s", "3d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"\[bad-budget\]"):
        budget_seconds(text)


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_tune_goes_on_after_an_interruption_and_compile_uses_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model, artifact, db = tmp_path / "net.py", tmp_path / "net.pock", tmp_path / "t.json"
    model.write_text(MODEL, encoding="utf-8")
    assert run(["compile", str(model), "-o", str(artifact), "--threads", "2"]) == 0
    symbols = set(json.loads((artifact / "manifest.json").read_text())["report"]["kernels"])
    real, calls = search.tune_kernel, []

    def interrupted(kernel: search.Kernel, setting: Setting) -> Outcome:
        calls.append(kernel.symbol)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(kernel, setting)

    monkeypatch.setattr(search, "tune_kernel", interrupted)
    command = ["tune", str(artifact), "-o", str(db), "--budget", "10m"]
    assert run(command) == 130
    kept = {e["kernel"] for e in json.loads(db.read_text())["kernels"]}
    assert kept == set(calls[:3])
    monkeypatch.setattr(search, "tune_kernel", real)
    capfd.readouterr()
    assert run(command) == 0
    out = capfd.readouterr().out
    assert "3 of them before" in out
    entries = json.loads(db.read_text())["kernels"]
    assert {e["kernel"] for e in entries} >= kept
    assert {e["kernel"] for e in entries} <= symbols | kept
    # A schedule that is certainly not the default's.
    product = next(e for e in entries if "matmul" in e["kernel"] and "fused" in e["kernel"])
    product["schedule"] = {"parallel_work": 1 << 21}
    db.write_text(json.dumps(json.loads(db.read_text()) | {"kernels": entries}))
    tuned = tmp_path / "tuned.pock"
    command = ["compile", str(model), "-o", str(tuned), "--threads", "2", "--tuning-db"]
    assert run([*command, str(db)]) == 0
    assert "kernels were measured" in capfd.readouterr().out
    report = json.loads((tuned / "manifest.json").read_text())["report"]
    assert report["tuning"]["measured"] == report["tuning"]["kernels"]
    assert report["tuning"]["changed"] >= 1


def test_a_bad_database_is_told_before_anything_is_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "t.json"
    db.write_text("not a database", encoding="utf-8")
    assert run(["tune", str(tmp_path / "net.pock"), "-o", str(db)]) == 1
    assert "[bad-tuning-db]" in capfd.readouterr().err
    assert db.read_text(encoding="utf-8") == "not a database"
