"""A real deployment: an artifact goes to an OpenSSH server, is trained there, comes home."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import pockc
from pockc.profile import read_profile
from tests.remote.conftest import Machine
from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]
ROOT = Path(__file__).parents[2]
ROWS, WIDTH, CLASSES = 40, 12, 5


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 24), nn.ReLU(), nn.Linear(24, CLASSES))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "net.pock"
    with pockc.compile(_network(), (torch.zeros(8, WIDTH),), optimizer="adamw") as artifact:
        artifact.save(path)
    return path


@pytest.fixture
def work(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the artifact and data, as a user has it."""
    subprocess.run(["cp", "-r", str(compiled), str(tmp_path / "net.pock")], check=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    target = np.argmax(x @ rng.standard_normal((WIDTH, CLASSES)), axis=1)
    np.savez(tmp_path / "train.npz", input=x, target=target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("work")
def test_a_deployed_artifact_is_opened_there_and_what_to_type_next_is_shown(
    machine: Machine, command: Command
) -> None:
    place = f"{machine.destination}:models"
    status, out, err = command("deploy", "net.pock", place, *machine.words)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert re.match(r"sent     .*pock-run, .*, manifest.json \([\d.]+ KiB\)$", lines[0])
    assert "artifact  models/net.pock, made by pockc" in out
    assert lines[-3] == f"deployed {machine.destination}:models/net.pock"
    assert lines[-2] == (
        "there    models/net.pock/pock-run train models/net.pock --data train.npz"
    )
    assert lines[-1].startswith(f"here     pockc train net.pock --on {place} --port ")
    assert {p.name for p in machine.home.iterdir()} == {"models"}
    status, out, _ = command("deploy", "net.pock", place, *machine.words)
    assert status == 0
    assert "sent" not in out
    assert out.startswith("there    details.tar.xz, frozen.safetensors, ")


def test_what_is_trained_there_comes_home_and_loads_into_pytorch(
    work: Path, machine: Machine, command: Command
) -> None:
    options = ("--on", machine.destination, *machine.words)
    data = ("--data", "train.npz", "--eval", "train.npz")
    status, out, err = command(
        "train", "net.pock", *data, "--epochs", 4, "--lr", 0.01, *options
    )
    assert (status, err) == (0, "")
    assert f"training {machine.destination}:net.pock: 40 samples, batches of 8" in out
    assert re.search(r"\nepoch 4  loss [\d.]+, [\d.]+ ms/step\neval     loss .*, acc", out)
    assert out.endswith("fetched  net.checkpoint.safetensors\nsaved    net.pock\n")

    # The log is that of the run, and the loss went down.
    events = [json.loads(t) for t in (work / "net.train.jsonl").read_text().splitlines()]
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])

    # Weights of the checkpoint and of the artifact load into PyTorch and are what was trained.
    assert command("export", "net.pock", "--to", "tuned.safetensors")[0] == 0
    network = _network()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    network.load_state_dict(load_file(work / "tuned.safetensors"), strict=True)
    checkpoint = load_file(work / "net.checkpoint.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, checkpoint[name])
        assert not torch.equal(tensor, before[name])

    # They are what the same training gives here.
    with np.load("train.npz") as file, pockc.load("net.pock", threads=1) as artifact:
        logits = network(torch.from_numpy(file["input"]))
        figures = artifact.evaluate({n: file[n] for n in file.files})
        accuracy = (logits.argmax(1).numpy() == file["target"]).mean()
    assert figures["accuracy"] == pytest.approx(accuracy)
    last = next(e for e in reversed(events) if e["event"] == "evaluation")
    assert last["accuracy"] == pytest.approx(accuracy)
    assert last["loss"] == pytest.approx(figures["loss"], rel=1e-3)


@pytest.mark.usefixtures("work")
def test_training_again_goes_on_from_what_came_home(machine: Machine, command: Command) -> None:
    words = ("--data", "train.npz", "--on", machine.destination, *machine.words)
    for steps in (5, 10):
        status, out, err = command("train", "net.pock", *words)
        assert (status, err) == (0, "")
        assert "sent" not in out or steps == 5
        with pockc.load("net.pock") as artifact:
            assert artifact.step == steps


@pytest.mark.usefixtures("work")
def test_evaluation_and_timing_run_there(machine: Machine, command: Command) -> None:
    options = ("--on", machine.destination, *machine.words)
    status, out, _ = command("eval", "net.pock", "--data", "train.npz", *options)
    assert status == 0
    assert re.search(r"^loss [\d.]+, accuracy [\d.]+, samples 40$", out, re.MULTILINE)
    here = command("eval", "net.pock", "--data", "train.npz")[1].strip()
    assert here.split(", ")[1:] == out.splitlines()[-1].split(", ")[1:]
    status, out, _ = command("bench", "net.pock", "--steps", 3, "--json", *options)
    assert status == 0
    assert json.loads(out.splitlines()[-1])["steps"] == 3


@pytest.mark.usefixtures("work")
def test_steps_are_timed_here(command: Command) -> None:
    status, out, err = command("bench", "net.pock", "--steps", 4, "--threads", 1)
    assert (status, err) == (0, "")
    assert re.match(r"step     median .* \(4 steps, 1 threads\)\n", out)


@pytest.mark.usefixtures("work")
def test_steps_are_profiled_there(machine: Machine, command: Command) -> None:
    words = ("--steps", 3, "--json", "p.json", "--on", machine.destination, *machine.words)
    status, out, err = command("profile", "net.pock", *words)
    assert (status, err) == (0, "")
    assert "step, median" in out
    assert len(read_profile(Path("p.json")).step_ms) == 3
    assert not list(machine.home.glob("*.json"))


def test_trained_weights_are_fetched(work: Path, machine: Machine, command: Command) -> None:
    assert command("deploy", "net.pock", machine.destination, *machine.words)[0] == 0
    there = machine.home / "net.pock"
    subprocess.run(
        [there / "pock-run", "train", there, "--data", "train.npz"], check=True, cwd=work
    )
    status, _, err = command("deploy", "net.pock", machine.destination, *machine.words)
    assert status == 1
    assert err.startswith("[trained-there] the weights in net.pock are not those that were")
    words = (machine.destination, *machine.words, "-o", "tuned.pock")
    status, out, _ = command("fetch", "net.pock", *words)
    assert status == 0
    assert out.endswith("saved    tuned.pock\n")
    with pockc.load("tuned.pock") as tuned, pockc.load("net.pock") as old:
        assert (tuned.step, old.step) == (5, 0)


@pytest.mark.usefixtures("work")
def test_a_run_that_fails_there_is_told(machine: Machine, command: Command) -> None:
    np.savez("wrong.npz", other=np.zeros(3))
    words = ("--data", "wrong.npz", "--on", machine.destination, *machine.words)
    status, _, err = command("train", "net.pock", *words)
    assert status == 1
    assert "[data-names] " in err
    assert err.endswith(
        f"[remote-run] pock-run train ended with status 1 on {machine.destination}\n"
        "    fix  what it said is above\n"
    )


def test_an_interrupt_ends_the_run_there_with_a_checkpoint(
    work: Path, machine: Machine, command: Command
) -> None:
    words = ["train", "net.pock", "--data", "train.npz", "--epochs", "100000"]
    words += ["--on", machine.destination, *machine.words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pockc.cli", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    log = work / "net.train.jsonl"
    while not log.exists() or log.stat().st_size < 1000:  # pytest's own timeout ends it
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 130
    assert out.endswith("--resume goes on from the checkpoint\n")
    steps = [e for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "step"]
    with pockc.load("net.pock") as artifact:
        assert artifact.step == 0
        artifact.load_state("net.checkpoint.safetensors")
        assert artifact.step == steps[-1]["step"]
    # A machine that has lost its own checkpoint goes on from the one here.
    (machine.home / "net.checkpoint.safetensors").unlink()
    status, out, err = command(
        "train", "net.pock", "--data", "train.npz", *words[-len(machine.words) - 2 :],
        "--resume", "--epochs", steps[-1]["epoch"] + 1,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert f"resumed  after {steps[-1]['step']} of " in out


@pytest.mark.usefixtures("work")
def test_data_that_is_not_here_is_told_before_anything_is_sent(
    machine: Machine, command: Command
) -> None:
    for verb in ("train", "eval"):
        words = ("--data", "none.npz", "--on", machine.destination, *machine.words)
        status, out, err = command(verb, "net.pock", *words)
        assert (status, out) == (1, "")
        assert err == "[data-file] there is no file none.npz\n    fix  check the path\n"


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_providers_are_refused_there(verb: str, machine: Machine, command: Command) -> None:
    options = ("--on", machine.destination, *machine.words, "--provider", "cuda")
    status, _, err = command(verb, "net.pock", "--data", "train.npz", *options)
    assert status != 0
    assert "[provider-there] --provider cuda is for ONNX Runtime here" in err
