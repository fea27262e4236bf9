"""Contribution analysis: what is tried, what follows from it, and that nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pockc.errors import UserError
from pockc.search.contribution import from_results, promising, trials, weight_gains
from pockc.search.session import Session
from pockc.search.space import Choice, refined
from tests.search.sessions import session_of

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


def ones(session: Session) -> dict[str, np.ndarray]:
    return {p: np.ones(i.shape[:1]) for p, i in session.captured.parameters.items()}


def test_each_weight_at_each_ratio_is_tried_over_the_biases_from_its_block_on() -> None:
    _, session = session_of("resnet")
    units = session.space.units
    tried = trials(session.space, "ratio")
    matrices = sum(len(u.weights) for u in units)
    assert len(tried) == 1 + len(units) + 3 * matrices
    trial = tried["blocks.1.conv1.weight at 0.5"]
    assert trial.base == "bias of last 2"
    choices = session.space.choices(trial.genes)
    assert choices[0] == Choice()
    assert choices[1] == Choice(bias=True, weights=("blocks.1.conv1.weight",), ratio=0.5)
    assert choices[2] == Choice(bias=True)
    assert session.space.choices(tried[trial.base].genes)[1:] == (Choice(bias=True),) * 2
    assert len(trials(session.space, "weight")) == 1 + len(units) + matrices
    assert len(trials(session.space, "block")) == 1 + 2 * len(units)


def test_a_model_without_biases_compares_weights_with_the_head() -> None:
    _, session = session_of("llama")
    tried = trials(session.space, "weight")
    assert {t.base for n, t in tried.items() if n != "head"} == {"head"}


def test_gains_are_over_the_base_and_more_channels_bring_no_less() -> None:
    _, session = session_of("resnet")
    tried = trials(session.space, "ratio")
    results = {n: {"accuracy": 0.5, "loss": 1.0} for n in tried}
    results["bias of last 2"] = {"accuracy": 0.6, "loss": 1.0}
    results["bias of last 3"] = {"accuracy": 0.58, "loss": 1.0}
    weight = "blocks.1.conv1.weight"
    results[weight] = {"accuracy": 0.75, "loss": 1.0}
    results[f"{weight} at 0.5"] = {"accuracy": 0.7, "loss": 1.0}
    results[f"{weight} at 0.25"] = {"accuracy": 0.72, "loss": 1.0}
    found = from_results(
        session.space, session.captured, ones(session), tried, results, "accuracy"
    )
    unit = session.space.units[1]

    def gain(choice: Choice) -> float:
        return found.gains[1][unit.menu.index(choice)]

    assert found.baseline == 0.5
    assert gain(Choice(bias=True)) == pytest.approx(0.1)
    assert gain(Choice(True, (weight,), 1.0)) == pytest.approx(0.1 + 0.15)
    assert gain(Choice(True, (weight,), 0.25)) == pytest.approx(0.1 + 0.12)
    assert gain(Choice(True, (weight,), 0.5)) == pytest.approx(0.1 + 0.12)
    # The other weights of the block are no better than the biases: they add nothing.
    assert gain(Choice(True, unit.weights)) == pytest.approx(0.1 + 0.15)
    # What the first block's biases add was noise below zero.
    assert found.gains[0][1] == 0.0


def test_gains_of_loss_are_what_it_falls_by() -> None:
    _, session = session_of("resnet")
    tried = trials(session.space, "block")
    results = {n: {"loss": 1.0} for n in tried}
    results["weights of blocks.2"] = {"loss": 0.75}
    scores = ones(session)
    space, captured = session.space, session.captured
    found = from_results(space, captured, scores, tried, results)
    assert (
        found.gains[2][space.units[2].menu.index(Choice(True, space.units[2].weights))] == 0.25
    )
    with pytest.raises(UserError, match=r"no accuracy(.|\n)*--score loss"):
        from_results(space, captured, scores, tried, results, "accuracy")


def test_the_proxy_chooses_what_is_tried_and_says_what_the_rest_brings() -> None:
    _, session = session_of("resnet")
    scores = ones(session)
    best, next_best = "blocks.2.conv2.weight", "blocks.0.conv1.weight"
    scores[best] = scores[best] * 100
    scores[next_best] = scores[next_best] * 25
    tried = trials(session.space, "weight")
    fewer = promising(tried, session.captured, scores, 1)
    assert [n for n, t in fewer.items() if t.weight] == [best]
    assert {n for n, t in tried.items() if not t.weight} <= set(fewer)
    results = {n: {"accuracy": 0.5} for n in fewer} | {best: {"accuracy": 0.7}}
    gains = weight_gains(session.captured, scores, fewer, results, "accuracy")
    assert gains[best] == pytest.approx(0.2)
    size = session.captured.parameters
    ratio = np.sqrt(25 * size[next_best].shape[0] / (100 * size[best].shape[0]))
    assert gains[next_best] == pytest.approx(0.2 * ratio)


def test_refined_blocks_train_their_best_weights_together() -> None:
    _, session = session_of("bert")
    unit = session.space.units[0]
    sizes = dict.fromkeys(unit.weights, 10)
    gains = {w: float(i) for i, w in enumerate(unit.weights)}
    space = refined(session.space, gains | dict.fromkeys(session.space.units[1].weights, 0.0),
                    sizes | dict.fromkeys(session.space.units[1].weights, 10))  # fmt: skip
    menu = space.units[0].menu
    assert menu[: len(unit.menu)] == unit.menu
    assert Choice(True, unit.weights[-2:], 0.5) in menu
    assert Choice(True, unit.weights[:2], 0.5) not in menu


MODEL = """
import torch
from tests import nets
model = nets.make("resnet")
*inputs, _ = nets.batches("resnet", 4, 1)[0]
example_inputs = tuple(inputs)
"""


def arguments(folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "pockc.cli", "search", str(folder / "model.py"),
        "--data", str(folder / "data.npz"), "--memory-budget", "540KiB",
        "--generations", "2", "--finalists", "1", "--processes", "1", "--threads", "1",
        "-o", str(folder / "config.yaml"),
    ]  # fmt: skip


def rows(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3, 24, 24)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, target=rng.integers(0, 5, 40))


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    rows(tmp_path)
    store = tmp_path / "config.contributions.json"
    command = arguments(tmp_path)
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if store.exists() and len(json.loads(store.read_text())["results"]) >= 3:
            break
        time.sleep(0.02)
    workers = children(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = json.loads(store.read_text())["results"]
    assert 3 <= len(before) < 12
    assert workers
    while any(Path(f"/proc/{w}").exists() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [w for w in workers if Path(f"/proc/{w}").exists()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"fine-tunes: {len(before)} of 12" in done.stderr
    after = json.loads(store.read_text())["results"]
    # What was known stays as it was, its times too: it was not made again.
    assert {n: after[n] for n in before} == before
    assert len(after) == 12
    assert (tmp_path / "config.yaml").exists()
