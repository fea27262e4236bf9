"""Training without Python: the same bits as the Python trainer, and runs that go on."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from pockc.runtime import TrainOptions, load, read_manifest
from pockc.runtime.order import rows_at
from pockc.runtime.safetensors import read_all, read_header
from pockc.runtime.training import SCHEDULES, learning_rate
from tests.device.conftest import Command, save_data
from tests.runtime.toy import toy_data, write_toy


def content(artifact: Path) -> dict[str, bytes]:
    """Every file of an artifact but its manifest, which has their hashes."""
    return {p.name: p.read_bytes() for p in artifact.iterdir()}


@pytest.mark.parametrize("kind", ["plain", "micro"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_trains_to_the_same_bits_as_python(
    pock_run: Command, tmp_path: Path, libraries: dict[str, Path], kind: str, schedule: str
) -> None:
    parts = 2 if kind == "micro" else 1
    data = save_data(tmp_path / "train.npz", 22)
    path = write_toy(tmp_path / "c.pock", libraries[kind], parts)
    pock_run.good(
        "train", path, "--data", data, "--epochs", 3, "--lr", 0.3, "--schedule", schedule,
        "--warmup", 2, "--final-lr", 0.1, "--seed", 11,
    )  # fmt: skip
    with load(write_toy(tmp_path / "py.pock", libraries[kind], parts)) as artifact:
        artifact.seed = 11
        x, target = toy_data(22)
        options = TrainOptions(
            epochs=3, lr=0.3, schedule=schedule, warmup_steps=2, final_lr=0.1, seed=11
        )
        artifact.train({"x": x, "target": target}, options)
        artifact.save(tmp_path / "py.pock")
    assert content(path) == content(tmp_path / "py.pock")
    assert load(path).step == (6 if kind == "micro" else 15)


def test_a_checkpoint_is_the_one_of_python(
    pock_run: Command, toy_path: Path, data: Path, tmp_path: Path
) -> None:
    pock_run.good("train", toy_path, "--data", data, "--checkpoint", tmp_path, "--no-save")
    file = tmp_path / "checkpoint.safetensors"
    header = read_header(file)
    assert header.metadata["pock.step"] == "3"
    with load(toy_path) as artifact:
        artifact.load_state(file)
        artifact.save_checkpoint(tmp_path / "again.safetensors", full=False)
        ours, theirs = read_all(file), read_all(tmp_path / "again.safetensors")
        assert {n: a.tobytes() for n, a in ours.items()} == {
            n: a.tobytes() for n, a in theirs.items()
        }
        theirs_header = read_header(tmp_path / "again.safetensors").metadata
        assert set(header.metadata) - set(theirs_header) == {"pock.run"}
    torch_reader = pytest.importorskip("safetensors.numpy")
    assert set(torch_reader.load_file(file)) == {
        "fc.weight", "last_seed", "optimizer.momentum.fc.weight"
    }  # fmt: skip


def test_events_are_json_lines(pock_run: Command, toy_path: Path, data: Path) -> None:
    events = pock_run.events("train", toy_path, "--data", data, "--eval", data, "--epochs", 2)
    kinds = [e["event"] for e in events]
    assert kinds == ["start", *(["step"] * 3 + ["epoch", "evaluation"]) * 2, "done", "saved"]
    steps = [e for e in events if e["event"] == "step"]
    assert [e["done"] for e in steps] == [1, 2, 3, 4, 5, 6]
    assert all(e["total"] == 6 and e["lr"] == pytest.approx(0.1) for e in steps)
    with load(toy_path) as artifact:
        x, target = toy_data(14)
        figures = artifact.evaluate({"x": x, "target": target})
    last = [e for e in events if e["event"] == "evaluation"][-1]
    assert last["loss"] == pytest.approx(figures["loss"], rel=1e-7)
    assert (last["accuracy"], last["samples"]) == (pytest.approx(figures["accuracy"]), 14)


def test_without_json_it_prints_lines_for_people(
    pock_run: Command, toy_path: Path, data: Path
) -> None:
    done = pock_run("train", toy_path, "--data", data, "--eval", data)
    lines = done.stdout.splitlines()
    assert done.stderr == ""  # no progress line without a terminal
    assert lines[0].startswith(f"training {toy_path}: 14 samples, batches of 4, ")
    assert lines[1].startswith("epoch 1  loss ")
    assert lines[2].startswith("eval     loss ")
    assert lines[-1] == f"saved    {toy_path}"


def test_the_order_of_rows_is_that_of_python(device: Path) -> None:
    at = ctypes.CDLL(str(device / "libpock.so")).pock_row_at
    at.restype, at.argtypes = (
        ctypes.c_uint64,
        [ctypes.c_uint64, ctypes.c_int64] + 2 * [ctypes.c_uint64],
    )
    for rows in (1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097):
        for seed, epoch in ((0, 0), (-5, 3), (1 << 40, 1)):
            order = rows_at(rows, seed, epoch, np.arange(rows))
            assert sorted(order) == list(range(rows))
            assert [at(rows, seed, epoch, i) for i in range(rows)] == order.tolist()


def test_every_order_of_few_rows_comes_about_as_often() -> None:
    orders = [tuple(rows_at(4, seed, 0, np.arange(4))) for seed in range(2400)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 24
    assert min(counts) > 60
    assert max(counts) < 150


def test_the_rate_of_a_step_is_that_of_python(device: Path) -> None:
    class Options(ctypes.Structure):
        _fields_ = (
            ("epochs", ctypes.c_uint32), ("shuffle", ctypes.c_int32), ("seed", ctypes.c_int64),
            ("lr", ctypes.c_double), ("schedule", ctypes.c_int), ("resume", ctypes.c_int32),
            ("warmup_steps", ctypes.c_uint64), ("final_lr", ctypes.c_double),
            ("rest", ctypes.c_char * 128),
        )  # fmt: skip

    rate = ctypes.CDLL(str(device / "libpock.so")).pock_learning_rate
    rate.restype = ctypes.c_double
    rate.argtypes = [ctypes.c_void_p, ctypes.c_double, ctypes.c_uint64, ctypes.c_uint64]
    for schedule, number in {"constant": 0, "linear": 1, "cosine": 2}.items():
        for warmup in (0, 3, 40):
            c = Options(schedule=number, warmup_steps=warmup, final_lr=0.2)
            py = TrainOptions(schedule=schedule, warmup_steps=warmup, final_lr=0.2)
            found = [rate(ctypes.byref(c), 0.3, step, 20) for step in range(25)]
            assert found == [learning_rate(step, 20, 0.3, py) for step in range(25)]


def test_a_run_that_is_resumed_ends_as_the_one_that_was_not(
    pock_run: Command, tmp_path: Path, libraries: dict[str, Path], data: Path
) -> None:
    whole = write_toy(tmp_path / "whole.pock", libraries["plain"])
    parts = write_toy(tmp_path / "parts.pock", libraries["plain"])
    options = ("--data", data, "--lr", 0.3, "--schedule", "cosine", "--epochs", 4)
    pock_run.good("train", whole, *options)
    run = tmp_path / "run"
    with subprocess.Popen(
        [str(pock_run.path), "train", str(parts), *map(str, options), "--checkpoint", str(run),
         "--checkpoint-every", "1", "--log-json"],
        stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["event"] == "checkpoint" and json.loads(line)["done"] == 5:
                child.send_signal(signal.SIGKILL)
                break
    events = pock_run.events("train", parts, *options, "--checkpoint", run, "--resume")
    resumed = next(e for e in events if e["event"] == "resumed")
    assert resumed["done"] >= 5
    assert content(parts) == content(whole)


def test_a_second_run_counts_its_own_steps(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    pock_run.good("train", toy_path, "--data", data, "--epochs", 2)
    options = ("train", toy_path, "--data", data, "--checkpoint", tmp_path, "--epochs", 3)
    pock_run.good(*options, "--no-save")
    assert read_header(tmp_path / "checkpoint.safetensors").metadata["pock.step"] == "15"
    events = pock_run.events(*options, "--resume")
    assert [e["done"] for e in events if e["event"] == "resumed"] == [9]
    assert [e for e in events if e["event"] == "step"] == []
    assert load(toy_path).step == 15


def test_resuming_another_run_is_refused(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    options = ("train", toy_path, "--data", data, "--no-save", "--checkpoint", tmp_path)
    pock_run.good(*options)
    file = tmp_path / "checkpoint.safetensors"
    assert pock_run.bad(*options, "--resume", "--seed", 5) == (
        f"[resume-mismatch] the run of {file} had 14 rows, shuffle 1, seed 0; this one has 14, "
        "1, 5\n    fix  give the same data, --seed and --no-shuffle as before, or leave "
        "--resume out"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_writes_the_checkpoint(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path, number: signal.Signals
) -> None:
    before = content(toy_path)
    command = [
        str(pock_run.path), "train", str(toy_path), "--data", str(data), "--epochs", "99999999",
        "--checkpoint", str(tmp_path), "--log-json",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        events = []
        for line in child.stdout:
            events.append(json.loads(line))
            if len(events) == 5:
                child.send_signal(number)
        message = child.stderr.read()
    assert child.returncode == 128 + number
    done = max(e["done"] for e in events if e["event"] == "step")
    saved = [e["done"] for e in events if e["event"] == "checkpoint"][-1]
    assert saved == done
    assert message.startswith(f"[stopped] stopped, as asked, after {done} of ")
    assert message.endswith("\n    fix  go on with --resume\n")
    metadata = read_header(tmp_path / "checkpoint.safetensors").metadata
    assert metadata["pock.step"] == str(done)
    assert content(toy_path) == before


def test_it_stops_when_the_evaluation_becomes_no_better(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    held_out = save_data(tmp_path / "test.npz", 6, seed=3)
    events = pock_run.events(
        "train", toy_path, "--data", data, "--eval", held_out, "--eval-every", 2,
        "--early-stop", 3, "--epochs", 500, "--lr", 2, "--no-save",
    )  # fmt: skip
    losses = [e["loss"] for e in events if e["event"] == "evaluation"]
    assert [e["event"] for e in events[-2:]] == ["early_stop", "done"]
    assert len(losses) < 750
    assert losses.index(min(losses)) == len(losses) - 4
    steps = [e["done"] for e in events if e["event"] == "evaluation"]
    assert steps == [2 * i + 2 for i in range(len(steps))]


def test_early_stopping_goes_on_behind_a_checkpoint(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    options = (
        "train", toy_path, "--data", data, "--eval", data, "--early-stop", 2, "--lr", 0,
        "--no-save", "--checkpoint", tmp_path,
    )  # fmt: skip
    pock_run.good(*options, "--epochs", 2)  # the second evaluation is the first one again
    events = pock_run.events(*options, "--epochs", 9, "--resume")
    assert [e["event"] for e in events if e["event"] != "step"] == [
        "start", "resumed", "evaluation", "epoch", "checkpoint", "evaluation", "early_stop",
        "done",
    ]  # fmt: skip


def test_checkpoints_come_by_steps_and_by_minutes(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    options = ("train", toy_path, "--data", data, "--epochs", 2, "--no-save", "--checkpoint")
    events = pock_run.events(*options, tmp_path, "--checkpoint-every", 2)
    assert [e["done"] for e in events if e["event"] == "checkpoint"] == [2, 3, 4, 6]
    events = pock_run.events(*options, tmp_path, "--checkpoint-minutes", 1e-9)
    assert [e["done"] for e in events if e["event"] == "checkpoint"] == [1, 2, 3, 4, 5, 6]


def test_the_result_goes_where_it_is_asked_to(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    before = content(toy_path)
    pock_run.good("train", toy_path, "--data", data, "--save", tmp_path / "tuned.pock")
    weights = tmp_path / "tuned.safetensors"
    pock_run.good("train", toy_path, "--data", data, "--save", weights)
    assert content(toy_path) == before
    tuned = load(tmp_path / "tuned.pock")
    assert tuned.step == 3
    arrays = read_all(weights)
    assert sorted(arrays) == sorted(tuned.state_dict())
    for name, value in tuned.state_dict().items():
        np.testing.assert_array_equal(arrays[name], value)
    assert read_manifest(tmp_path / "tuned.pock").files["step.so"].nbytes > 0


def test_an_export_of_a_checkpoint_is_the_whole_state_dict(
    pock_run: Command, tmp_path: Path, toy_path: Path, data: Path
) -> None:
    pock_run.good("train", toy_path, "--data", data, "--no-save", "--checkpoint", tmp_path)
    out = tmp_path / "out.safetensors"
    pock_run.good("export", toy_path, "--checkpoint", tmp_path, "--to", out)
    with load(toy_path) as artifact:
        artifact.load_state(tmp_path / "checkpoint.safetensors")
        arrays = read_all(out)
        assert sorted(arrays) == sorted(artifact.state_dict())
        for name, value in artifact.state_dict().items():
            np.testing.assert_array_equal(arrays[name], value)


def test_progress_is_a_line_on_a_terminal(
    pock_run: Command, toy_path: Path, data: Path
) -> None:
    parent, child = os.openpty()
    command = [str(pock_run.path), "train", str(toy_path), "--data", str(data), "--no-save"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=child, check=True)
    os.close(child)
    time.sleep(0.05)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert "\r\x1b[Kepoch 1  step 3/3  loss " in shown
    assert shown.endswith("\r\x1b[K")
