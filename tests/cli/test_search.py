"""The command `search`: what it writes, its budgets, and what it refuses before it begins."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.small import rows, write_model
from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and 40 rows."""
    return write_model(tmp_path)


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
    assert "[budget] training the head alone does not fit 10 KiB (it takes" in err
    assert not (folder / "found.contributions.json").exists()


QUICK = ("--memory-budget", "760KiB", "--detail", "block", "--finalists", "1",
         "--processes", "1")  # fmt: skip


INTERRUPTIBLE = """
import signal, sys
from pockc.cli.app import run
# A shell's background jobs ignore the signal, and their children would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(run(sys.argv[1:]))
"""


def results(folder: Path) -> dict[str, dict[str, float]]:
    content = json.loads((folder / "found.contributions.json").read_text())
    found: dict[str, dict[str, float]] = content["results"]
    return found


@pytest.mark.slow
def test_an_interrupted_search_says_how_to_go_on_and_does(folder: Path, pockc: Command) -> None:
    words = [str(w) for w in arguments(folder, *QUICK)]
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    store = folder / "found.contributions.json"
    end = time.monotonic() + 300
    while not store.exists() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert f"interrupted; {store} keeps what is known: the same command goes on" in err
    assert "Traceback" not in err
    known = results(folder)
    assert 1 <= len(known) < 7
    status, out, err = pockc(*arguments(folder, *QUICK))
    assert status == 0, err
    assert f"fine-tunes: {len(known)} of 7" in err
    # The head; of each block its biases, and all of it. What was known is as it was.
    assert len(results(folder)) == 7
    assert known.items() <= results(folder).items()
    assert "less loss on held-out rows" in out
    assert "32 rows to train, 8 to evaluate, every fifth row held out" in out


@pytest.mark.slow
def test_the_other_proxy_chooses_too(folder: Path, pockc: Command) -> None:
    more = ("--memory-budget", "760KiB", "--proxy-only", "--proxy", "gradient-weight")
    status, out, err = pockc(*arguments(folder, *more))
    assert status == 0, err
    assert "by the proxy gradient-weight" in out
    assert not (folder / "found.contributions.json").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"settings": {', "Expecting property name"),
        ("[]", "list indices must be integers"),
        ('{"settings": {}}', "it has no 'results'"),
        ('{"settings": {}, "results": {"head": 3}}', "object has no attribute 'items'"),
        ('{"settings": {}, "results": {}}', "was made with"),
    ],
)
def test_damaged_contributions_are_told_and_kept(
    folder: Path, pockc: Command, text: str, why: str
) -> None:
    kept = folder / "kept.json"
    kept.write_text(text, encoding="utf-8")
    more = ("--memory-budget", "760KiB", "--contributions", kept)
    status, _, err = pockc(*arguments(folder, *more))
    assert status == 1
    assert f"[contributions] {kept}" in err
    assert why in err
    assert "fix  give another --contributions file, or delete this one" in err
    assert kept.read_text() == text


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (
            lambda d: {"imgs": d["x"], "target": d["target"]},
            ("[data-names] train needs an array 'x', the file has imgs, target",
             "call it x or X or input or inputs"),
        ),
        (
            lambda d: {"x": d["x"], "classes": d["target"]},
            ("needs an array 'target'", "call it target or targets or y or label or labels"),
        ),
        (
            lambda d: {"x": d["x"][:30], "target": d["target"]},
            ("[data-rows] the arrays have different numbers of rows: x has 30, target has 40",),
        ),
        (
            lambda d: {k: v[:3] for k, v in d.items()},
            ("[too-few-rows] the data has 3 rows, a step takes 4",),
        ),
        (
            lambda d: {k: v[:4] for k, v in d.items()},
            ("[too-few-rows] no row of", "give --eval, or more rows"),
        ),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_the_model_is_told_before_anything_long(
    folder: Path, pockc: Command, change: Any, texts: tuple[str, ...]
) -> None:
    np.savez(folder / "data.npz", **change(rows()))
    status, _, err = pockc(*arguments(folder, "--memory-budget", "760KiB"))
    assert status == 1
    for text in texts:
        assert text in err
    assert "fine-tunes" not in err


def test_a_file_that_is_not_there_is_told_before_the_model_is_read(
    folder: Path, pockc: Command
) -> None:
    (folder / "model.py").write_text("raise SystemExit('read')", encoding="utf-8")
    gone = ("--memory-budget", "760KiB", "--eval", folder / "gone.npz")
    status, _, err = pockc(*arguments(folder, *gone))
    assert status == 1
    assert f"[data-file] there is no file {folder / 'gone.npz'}" in err


def test_a_time_that_no_step_can_take_is_told(folder: Path, pockc: Command) -> None:
    status, _, err = pockc(*arguments(folder, "--latency-budget", "0.1us"))
    assert status == 1
    pattern = r"\[budget\] training the head alone does not fit 0.0001 ms \(it takes about"
    assert re.search(pattern, err), err


def test_a_configuration_written_by_hand_is_not_replaced(folder: Path, pockc: Command) -> None:
    by_hand = folder / "found.yaml"
    by_hand.write_text("optimizer: sgd\n", encoding="utf-8")
    status, _, err = pockc(*arguments(folder, "--memory-budget", "760KiB", "--base", by_hand))
    assert status == 1
    assert f"[output] {by_hand} is there, and no search has written it" in err
    assert by_hand.read_text() == "optimizer: sgd\n"
