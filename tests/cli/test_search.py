"""The command `search`: what it writes, its budgets, and what it refuses before it begins."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

MODEL = """
import torch
from tests import nets
model = nets.make("resnet")
*inputs, _ = nets.batches("resnet", 4, 1)[0]
example_inputs = tuple(inputs)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and 40 rows."""
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3, 24, 24)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, target=rng.integers(0, 5, 40))
    return tmp_path


def arguments(folder: Path, *more: object) -> list[object]:
    return [
        "search", folder / "model.py", "--data", folder / "data.npz",
        "-o", folder / "found.yaml", "--generations", 2, "--threads", 1, *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_search_by_memory_writes_what_plan_and_compile_take(
    folder: Path, pockc: Command
) -> None:
    budget = ("--memory-budget", "540KiB", "--proxy-only")
    status, out, err = pockc(*arguments(folder, *budget))
    assert status == 0, err
    assert "planned exactly" in out
    config = folder / "found.yaml"
    assert config.read_text().startswith("# found by pockc search")
    assert (folder / "found.pareto.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "found.pareto.csv").read_text().splitlines()))
    chosen = [r for r in rows if r["chosen"] == "1"]
    assert len(chosen) == 1
    assert int(chosen[0]["memory_bytes"]) <= 540 * 1024
    assert chosen[0]["scheme"].endswith("head")
    memory = [int(r["memory_bytes"]) for r in rows]
    assert memory == sorted(memory)
    plan = ("plan", folder / "model.py", "--sparse-update", config, "--threads", 1)
    assert pockc(*plan, "--memory-budget", "540KiB")[0] == 0


@pytest.mark.slow
def test_a_search_by_time_keeps_to_it(folder: Path, pockc: Command) -> None:
    more = ("--latency-budget", "0.2ms", "--proxy-only")
    status, out, err = pockc(*arguments(folder, *more))
    assert status == 0, err
    found = re.search(r"time +([\d.]+) (us|ms) a step, estimated", out)
    assert found is not None
    assert float(found[1]) * (1e-3 if found[2] == "us" else 1) <= 0.2


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ((), "[budget] a search needs a budget"),
        (("--memory-budget", "lots"), "[budget] cannot read 'lots' as a budget"),
        (("--memory-budget", "1MiB", "--detail", "layer"), "no --detail 'layer'"),
        (("--memory-budget", "1MiB", "--score", "f1"), "choose from: loss, accuracy"),
        (("--memory-budget", "1MiB", "--proxy", "x"), "choose from: fisher, gradient-weight"),
    ],
)
def test_a_search_refuses_what_it_cannot_do(
    folder: Path, pockc: Command, more: tuple[str, ...], text: str
) -> None:
    status, _, err = pockc(*arguments(folder, *more))
    assert status != 0
    assert text in err
    assert not (folder / "found.yaml").exists()


def test_a_budget_below_the_head_is_told_before_anything_is_fine_tuned(
    folder: Path, pockc: Command
) -> None:
    status, _, err = pockc(*arguments(folder, "--memory-budget", "10KiB"))
    assert status != 0
    assert "[budget] training the head alone does not fit 10240 bytes" in err
    assert not (folder / "found.contributions.json").exists()
