"""Profiles: recorded by pock-run, joined with the artifact, shown and written."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pockc.errors import UserError
from pockc.profile import Profile, joined, read_profile, read_recording, write_profile
from pockc.profile.trace import trace_text
from pockc.runtime import read_manifest
from pockc.runtime.opening import read_graph_text
from tests.device.conftest import Command as Program
from tests.profile.small import CLASSES, HIDDEN, PRODUCTS, ROWS, WIDTH, compiled_to
from tests.support import Command

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

STEPS = 8


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_to(tmp_path_factory.mktemp("full") / "full.pock")


def recorded(artifact: Path, path: Path, *words: object) -> Path:
    words = ("--steps", STEPS, "--profile", path, *words)
    Program(artifact / "pock-run").good("bench", artifact, *words)
    return path


@pytest.fixture(scope="module")
def recording(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(full, tmp_path_factory.mktemp("recording") / "out.json")


@pytest.fixture(scope="module")
def profile(full: Path, recording: Path) -> Profile:
    return joined(read_recording(recording), full)


def test_kernel_times_sum_to_the_step_within_3_percent(full: Path, tmp_path: Path) -> None:
    # The median step: another process may take the processor between two kernels of some.
    gaps = []
    for attempt in range(5):
        found = read_recording(recorded(full, tmp_path / f"{attempt}.json", "--threads", 1))
        kernels = np.array([ns for e in found.entries for ns in e.ns]).sum(axis=0) * 1e-6
        gaps.append(float(np.median(1 - kernels / np.array(found.step_ms))))
        if 0 <= gaps[-1] < 0.03:
            return
    pytest.fail(f"shares of the step outside kernels: {gaps}")


def test_flops_are_those_of_the_formulas(profile: Profile) -> None:
    found: dict[str, int] = defaultdict(int)
    for kernel in profile.kernels:
        found["forward" if kernel.phase == "forward" else "late"] += kernel.flops
    assert found == PRODUCTS


def test_bytes_are_those_of_operands_and_result(profile: Profile, full: Path) -> None:
    graph = read_graph_text(full)
    first = next(k for k in profile.kernels if k.flops == 2 * ROWS * WIDTH * HIDDEN)
    assert first.phase == "forward"
    assert f"%{first.node} :" in graph
    x, weight, bias, out = ROWS * WIDTH, WIDTH * HIDDEN, HIDDEN, ROWS * HIDDEN
    assert first.nbytes in (4 * (x + weight + bias + out), 4 * (x + weight + out))
    assert first.gbs == pytest.approx(first.nbytes / first.ms * 1e-6)
    assert first.gflops == pytest.approx(first.flops / first.ms * 1e-6)


def test_kernels_know_the_users_module_and_line(profile: Profile) -> None:
    first = next(k for k in profile.kernels if k.flops == 2 * ROWS * WIDTH * HIDDEN)
    assert first.module == "first"
    assert first.source.startswith("small.py:") or "torch.relu" in first.source
    assert {k.phase for k in profile.kernels} == {"forward", "backward", "update"}
    phases = profile.phase_ms()
    assert sum(phases.values()) == pytest.approx(sum(k.ms for k in profile.kernels))


def test_planned_memory_is_that_of_the_plan(profile: Profile, full: Path) -> None:
    manifest, memory = read_manifest(full), profile.memory
    assert memory is not None
    entry = manifest.entries["train_step"]
    assert max(memory.timeline) == entry.lower_bound_bytes
    assert len(memory.timeline) == entry.steps + 2
    alive = memory.inputs + memory.saved_activations + memory.workspace + memory.temporaries
    assert alive == max(memory.timeline) == memory.timeline[memory.peak_call + 1]
    assert memory.parameters + memory.optimizer_state == manifest.memory["state_bytes"]
    assert profile.kernels[memory.peak_call].node == memory.peak_node


def test_what_was_measured_makes_sense(profile: Profile) -> None:
    assert len(profile.step_ms) == STEPS
    assert profile.median_ms <= profile.p95_ms == max(profile.step_ms)
    assert 0 < profile.rss_before_bytes < profile.rss_peak_bytes
    assert profile.machine.peak_gflops > 1
    assert profile.machine.peak_gbs > 0.1
    assert len(profile.busy_ns) == profile.machine.threads
    assert sum(profile.busy_ns) > 0
    assert all(0 <= share <= 1 for share in profile.balance())


def test_micro_batches_count_each_of_their_runs(tmp_path: Path) -> None:
    path = compiled_to(tmp_path / "parts.pock", sparse_update={"accumulate": 4})
    found = joined(read_recording(recorded(path, tmp_path / "out.json")), path)
    assert {k.entry: k.runs for k in found.kernels} == {"train_step": 4, "apply_update": 1}
    assert {k.phase for k in found.kernels if k.entry == "apply_update"} == {"update"}
    calls = sum(k.runs for k in found.kernels)
    first_threads = [s for s in found.spans if s.thread == 0]
    assert len(first_threads) == calls * len(found.span_steps)


def test_a_profile_is_read_as_it_was_written(profile: Profile, tmp_path: Path) -> None:
    write_profile(profile, tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile


def test_the_trace_tells_steps_threads_and_memory(profile: Profile) -> None:
    events = json.loads(trace_text(profile))["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}
    assert all({"name", "ph", "pid"} <= set(e) and e.get("ts", 0) >= 0 for e in events)
    steps = [e for e in events if e.get("cat") == "step"]
    expected = profile.step_ms[-len(steps) :]
    assert [e["dur"] / 1e3 for e in steps] == pytest.approx(list(expected), rel=1e-6)
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert [tracks[t + 1] for t in range(profile.machine.threads)] == [
        f"thread {t}" for t in range(profile.machine.threads)
    ]
    for track in tracks:
        spans = sorted(
            (e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["tid"] == track
        )
        ends = [begin + length for begin, length in spans]
        assert all(b[0] >= end - 1e-6 for b, end in zip(spans[1:], ends, strict=False))
    counted = [e["args"]["bytes"] for e in events if e["ph"] == "C"]
    assert profile.memory is not None
    assert max(counted) == max(profile.memory.timeline)


def test_the_command_writes_json_csv_and_a_trace(
    full: Path, command: Command, tmp_path: Path
) -> None:
    files = {k: tmp_path / f"out.{k}" for k in ("json", "csv", "trace")}
    words = [w for k, f in files.items() for w in (f"--{k}", f)]
    status, out, err = command("profile", full, "--steps", 3, "--top", 4, *words)
    assert (status, err) == (0, "")
    for line in ("load", "first step", "step, median", "backward", "optimizer state",
                 "resident at most", "thread 0", "GFLOP/s", "small.py"):  # fmt: skip
        assert line in out
    found = read_profile(files["json"])
    assert len(found.step_ms) == 3
    rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
    assert len(rows) == len(found.kernels)
    times = [float(r["ms"]) for r in rows]
    assert times == sorted(times, reverse=True)
    assert sum(float(r["share"]) for r in rows) == pytest.approx(1)
    assert json.loads(files["trace"].read_text())["traceEvents"]


def test_two_artifacts_are_shown_side_by_side(
    full: Path, recording: Path, command: Command, tmp_path: Path
) -> None:
    head = compiled_to(tmp_path / "head.pock", sparse_update={"preset": "head"})
    saved = recorded(head, tmp_path / "head.json")
    write_profile(joined(read_recording(saved), head), tmp_path / "profile.json")
    status, out, err = command(
        "profile", full, "--from", recording, "--compare", tmp_path / "profile.json"
    )
    assert (status, err) == (0, "")
    assert "full.pock  head.pock  ratio" in " ".join(out.split()).replace(" ", "  ")
    assert "head.pock: " in out


def test_training_is_recorded_without_python(
    full: Path, command: Command, tmp_path: Path
) -> None:
    artifact = Path(shutil.copytree(full, tmp_path / "net.pock"))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5 * ROWS, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, target=rng.integers(0, CLASSES, len(x)))
    out = tmp_path / "out.json"
    words = ("train", artifact, "--data", tmp_path / "train.npz", "--eval",
             tmp_path / "train.npz", "--eval-every", 1, "--epochs", 2)  # fmt: skip
    pock_run = Program(artifact / "pock-run")
    pock_run.good(*words, "--profile", out, "--profile-steps", 6)
    assert len(read_recording(out).step_ms) == 6
    status, shown, err = command("profile", artifact, "--from", out)
    assert (status, err) == (0, "")
    assert "step, median" in shown
    message = pock_run.bad(*words, "--profile", tmp_path / "no" / "out.json")
    assert message.startswith("[no-folder] ")


def test_a_run_of_one_step_has_nothing_to_tell(full: Path, tmp_path: Path) -> None:
    artifact = Path(shutil.copytree(full, tmp_path / "net.pock"))
    x = np.zeros((ROWS, WIDTH), np.float32)
    np.savez(tmp_path / "one.npz", x=x, target=np.zeros(ROWS, np.int64))
    message = Program(artifact / "pock-run").bad(
        "train", artifact, "--data", tmp_path / "one.npz", "--profile", tmp_path / "out.json"
    )
    assert message == (
        "[profile-steps] no step was recorded: the first one, which loads pages, does not "
        "count\n"
        "    fix  take at least two steps: more rows or more epochs"
    )
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[: len(text) // 2], "is damaged: "),
        (lambda text: text.replace('"threads":', '"strands":'), "threads: Field required"),
        (lambda text: text.replace('"version":1', '"version":9'), "has version 9"),
        (lambda text: text.replace("pock-recording", "other"), "is no pock-recording"),
        (lambda _: "[]", "is no pock-recording"),
    ],
)
def test_a_damaged_recording_is_refused(
    recording: Path, tmp_path: Path, change: Callable[[str], str], says: str
) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(change(recording.read_text()))
    with pytest.raises(UserError, match=r"\[profile-file\]") as caught:
        read_recording(path)
    assert says in str(caught.value)
    assert "fix  record it again" in str(caught.value)


def test_a_missing_profile_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[profile-file\] .*none.json cannot be read"):
        read_profile(tmp_path / "none.json")


def test_a_recording_of_another_artifact_is_refused(recording: Path, tmp_path: Path) -> None:
    other = compiled_to(tmp_path / "other.pock", optimizer="sgd")
    with pytest.raises(UserError, match=r"\[foreign-recording\] the recording is of another"):
        joined(read_recording(recording), other)


def test_an_unknown_order_names_the_choices(full: Path, command: Command) -> None:
    status, _, err = command("profile", full, "--sort", "colour")
    assert status == 1
    assert "choose from: time, order, gflops, gbs, roofline" in err
