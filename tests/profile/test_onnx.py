"""Profiles of ONNX models: what ONNX Runtime recorded, joined with the artifact."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from pockc import driver
from pockc.errors import UserError
from pockc.frontend.loading import UserModel
from pockc.ir import Graph
from pockc.profile import Profile, joined
from pockc.profile.onnx_events import multiply_adds, read_runs
from pockc.profile.onnx_join import onnx_facts
from pockc.profile.onnx_steps import main, record
from pockc.profile.recording import RecordedEntry, Recording, Work, read_recording
from pockc.profile.trace import trace_text
from pockc.runtime import read_manifest
from pockc.runtime.opening import sha256_of
from tests.profile.small import CLASSES, HIDDEN, PRODUCTS, ROWS, WIDTH, Net, compiled_to
from tests.support import Command, graph

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]

STEPS = 4


class Images(nn.Module):
    """A frozen part, which ONNX Runtime brings into a layout of its own, then a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.fc = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.depth(torch.relu(self.stem(x))))
        return self.fc(h.mean((2, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_to(tmp_path_factory.mktemp("onnx") / "net.pock", backend="onnx")


@pytest.fixture(scope="module")
def recording(folder: Path) -> Recording:
    return record(folder, STEPS)


@pytest.fixture(scope="module")
def profile(folder: Path, recording: Recording) -> Profile:
    return joined(recording, folder)


def flops_by_phase(profile: Profile) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for kernel in profile.kernels:
        found["forward" if kernel.phase == "forward" else "late"] += kernel.flops
    return found


def test_flops_are_those_of_the_formulas(profile: Profile) -> None:
    assert flops_by_phase(profile) == PRODUCTS


def test_bytes_are_those_of_operands_and_result(profile: Profile) -> None:
    first = next(k for k in profile.kernels if k.flops == 2 * ROWS * WIDTH * HIDDEN)
    assert first.nbytes == 4 * (ROWS * WIDTH + WIDTH * HIDDEN + HIDDEN + ROWS * HIDDEN)


def test_operators_know_the_users_module_and_line(profile: Profile) -> None:
    products = [k for k in profile.kernels if k.flops]
    assert {(k.module, k.phase) for k in products} == {
        (module, phase) for module in ("first", "last") for phase in ("forward", "backward")
    }
    assert {Path(k.source.partition(":")[0]).name for k in products} == {"small.py"}
    assert {k.phase for k in profile.kernels} == {"forward", "backward", "update"}
    assert sum(profile.phase_ms().values()) == pytest.approx(sum(k.ms for k in profile.kernels))


def test_steps_are_timed_and_recorded(profile: Profile, recording: Recording) -> None:
    assert len(profile.step_ms) == STEPS
    assert all(len(ns) == STEPS for e in recording.entries for ns in e.ns)
    assert profile.backend == "onnx"
    assert profile.load_ms > 0
    assert 0 < profile.rss_before_bytes < profile.rss_peak_bytes


def test_held_memory_is_that_of_state_and_allocator(profile: Profile) -> None:
    held, weights = profile.held, 4 * (WIDTH * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES)
    assert profile.memory is None
    assert held is not None
    assert held.parameters == weights
    assert held.optimizer_state == 2 * weights
    # The gradient of the hidden values still reads the second layer's weight.
    assert held.second_buffers == 4 * HIDDEN * CLASSES
    assert 0 < held.peak <= held.arena
    assert len(held.timeline) == len(profile.kernels)


def test_a_trace_shows_operators_steps_and_memory(profile: Profile) -> None:
    events = json.loads(trace_text(profile))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X" and e["cat"] != "step"]
    steps = [e for e in events if e.get("cat") == "step"]
    assert len(steps) == 3
    assert len(spans) == 3 * len(profile.kernels)
    for step in steps:
        inside = [
            s
            for s in spans
            if step["ts"] <= s["ts"] and s["ts"] + s["dur"] <= step["ts"] + step["dur"]
        ]
        assert len(inside) == len(profile.kernels)
    assert {e["name"] for e in events if e["ph"] == "C"} == {"live bytes"}


def test_what_the_runtime_put_in_belongs_to_what_follows(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 16, 16)
    path = compiled_to(
        tmp_path / "images.pock", Images(), images, backend="onnx", sparse_update="preset:head"
    )
    made = joined(record(path, 2), path)
    pixels = 2 * 16 * 16
    convolutions = [k for k in made.kernels if "Conv" in k.op]
    assert [k.flops for k in convolutions] == [2 * pixels * 16 * 3 * 9, 2 * pixels * 16 * 9]
    assert all("test_onnx.py:" in k.source for k in convolutions)
    foreign = [k for k in made.kernels if k.op.startswith("Reorder")]
    assert foreign
    assert {k.phase for k in foreign} == {"forward"}


def test_micro_batches_are_runs_of_one_step(tmp_path: Path) -> None:
    path = compiled_to(tmp_path / "parts.pock", backend="onnx", sparse_update={"accumulate": 4})
    made = joined(record(path, 2), path)
    by_entry = {
        e: [k for k in made.kernels if k.entry == e] for e in ("train_step", "apply_update")
    }
    assert {k.runs for k in by_entry["train_step"]} == {4}
    assert {(k.runs, k.phase) for k in by_entry["apply_update"]} == {(1, "update")}
    assert len(made.span_steps) == 2
    calls = 4 * len(by_entry["train_step"]) + len(by_entry["apply_update"])
    assert len(made.spans) == 2 * calls


def test_the_command_shows_and_writes_and_changes_nothing(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    before = {f.name: sha256_of(f) for f in folder.iterdir()}
    files = [tmp_path / n for n in ("p.json", "p.csv", "t.json")]
    words = ("--steps", "2", "--threads", "1", "--json", files[0], "--csv", files[1])
    status, out, err = command("profile", folder, *words, "--trace", files[2])
    assert (status, err) == (0, "")
    for word in ("forward", "second buffers", "1 threads", "first", "small.py:"):
        assert word in out
    assert "share of the step in kernels" not in out
    made = Profile.model_validate_json(files[0].read_text())
    assert made.machine.threads == 1
    with files[1].open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(made.kernels)
    assert len(json.loads(files[2].read_text())["traceEvents"]) > len(made.kernels)
    assert {f.name: sha256_of(f) for f in folder.iterdir()} == before
    status, out, _ = command("profile", folder, "--steps", "2", "--compare", files[0])
    assert status == 0
    assert "ratio" in out


def test_an_onnx_artifact_stands_beside_one_of_kernels(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    native = compiled_to(tmp_path / "native.pock")
    status, out, _ = command("profile", folder, "--steps", "2", "--compare", native)
    assert status == 0
    assert "saved activations" in out
    assert "second buffers" in out


def test_a_report_takes_the_profile(folder: Path, command: Command, tmp_path: Path) -> None:
    profile, page = tmp_path / "p.json", tmp_path / "r.html"
    assert command("profile", folder, "--steps", "2", "--json", profile)[0] == 0
    status, _, err = command("report", folder, "--profile", profile, "-o", page)
    assert (status, err) == (0, "")
    assert "FusedGemm" in page.read_text() or "Gemm" in page.read_text()


def test_a_recording_of_another_model_is_refused(recording: Recording, tmp_path: Path) -> None:
    other = compiled_to(tmp_path / "other.pock", backend="onnx", optimizer="sgd")
    with pytest.raises(UserError, match=r"\[foreign-recording\]"):
        joined(recording, other)


def test_another_machine_is_refused(folder: Path, command: Command) -> None:
    status, _, err = command("profile", folder, "--on", "pi@nowhere.invalid")
    assert status == 1
    assert err.startswith("[no-program] ")
    assert "run pockc profile on that machine" in err


def test_models_of_the_training_api_are_refused(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "ort.pock"
    user = UserModel(Net(), (torch.zeros(ROWS, WIDTH),))
    config = driver.read_config(None, {"optimizer": "adamw"})
    driver.build(user, config, path, driver.Options(backend="ort-training"))
    status, _, err = command("profile", path)
    assert status == 1
    assert err.startswith("[no-kernel-times] ")
    assert "--backend tvm or onnx" in err


def test_the_process_that_records_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(str(tmp_path / "none.pock"), "2", "0", str(tmp_path / "out.json")) == 1
    assert capsys.readouterr().err.startswith("[no-artifact] ")


def test_the_process_that_records_writes_a_recording(folder: Path, tmp_path: Path) -> None:
    assert main(str(folder), "2", "1", str(tmp_path / "out.json")) == 0
    found = read_recording(tmp_path / "out.json")
    assert found.step_sha256 == read_manifest(folder).step_sha256
    assert found.threads == 1


@pytest.mark.parametrize(
    ("op", "inputs", "output", "expected"),
    [
        ("MatMul", [[5, 2, 3], [3, 4]], [5, 2, 4], 5 * 2 * 3 * 4),
        ("MatMul", [[2, 3], [5, 3, 4]], [5, 2, 4], 5 * 2 * 3 * 4),
        ("FusedMatMul", [[5, 3, 2], [5, 3, 4]], [5, 2, 4], 5 * 2 * 3 * 4),
        ("Gemm", [[3, 2], [4, 3], [4]], [2, 4], 2 * 3 * 4),
        ("Gemm", [[2, 3]], [2, 4], 2 * 3 * 4),
        ("Conv", [[1, 6, 8, 8], [4, 3, 3, 3]], [1, 4, 8, 8], 4 * 64 * 27),
        ("ConvTranspose", [[1, 6, 4, 4], [6, 2, 3, 3]], [1, 4, 8, 8], 6 * 16 * 18),
        ("Conv", [[1, 6, 8, 8]], [1, 4, 8, 8], 0),
        ("Gemm", [[0, 3], [4, 3]], [0, 4], 0),
        ("Add", [[2, 3], [2, 3]], [2, 3], 0),
    ],
)
def test_multiply_adds_are_told_by_shapes(
    op: str, inputs: list[list[int]], output: list[int], expected: int
) -> None:
    assert multiply_adds(op, inputs, [output]) == expected


def test_events_of_an_older_runtime_tell_no_memory(tmp_path: Path) -> None:
    def node(name: str, ts: int) -> dict[str, object]:
        args = {"op_name": "Add", "output_size": "8", "activation_size": "16"}
        return {"cat": "Node", "name": name, "ts": ts, "dur": 2, "args": args}

    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 5, "args": {}},
        node("forward/add_fence_before", 7),
        node("forward/add_kernel_time", 8),
        {"cat": "Session", "name": "model_run", "ts": 6, "dur": 9, "args": {}},
    ]
    path = tmp_path / "events.json"
    path.write_text(json.dumps(events))
    (run,) = read_runs(path, 1000)
    assert (run.begin_ns, run.end_ns) == (7000, 16000)
    (call,) = run.calls
    assert (call.name, call.begin_ns, call.end_ns) == ("forward/add", 9000, 11000)
    assert call.work == Work(flops=0, nbytes=24, live_bytes=0)


def small_graph() -> tuple[Graph, str]:
    text = """graph train_step {
  %x : f32[2] = input batch "x"
  %w : f32[2] = input param "w"
  %mul : f32[2] = mul(%x, %w)  # [fc] net.py:3 in Net.forward: x * w
  %mul_2 : f32[2] = mul(%mul, %w)  # [fc] net.py:4 in Net.forward: h * w
  %loss : f32[] = reduce_sum(%mul_2) {axes=(0,), keepdims=false}
  output loss %loss
  output update "w" %mul
}"""
    return graph(text), text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("forward/fc/mul", 3),
        ("forward/fc/mul_2", 4),
        ("forward/fc/mul.2", 3),
        ("fused forward/fc/mul_2", 4),
        ("forward/fc/mul_2/MatmulTransposeFusion/", 4),
        ("forward/fc/mul_2_nchwc", 4),
        ("forward/fc/mul_22", None),
        ("forward/other", None),
        ("ReorderInput", None),
    ],
)
def test_operators_are_traced_to_the_node_they_come_from(name: str, line: int | None) -> None:
    made, text = small_graph()
    entry = RecordedEntry(
        name="train_step",
        runs=1,
        kernels=("Mul",),
        nodes=(name,),
        ns=((1,),),
        work=(Work(flops=0, nbytes=0, live_bytes=0),),
    )
    (facts,) = onnx_facts(entry, made, text)
    assert facts.source == ("" if line is None else facts.source)
    assert line is None or facts.source.startswith(f"net.py:{line} ")
    assert facts.phase == "forward"
