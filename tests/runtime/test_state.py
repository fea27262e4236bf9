"""Weights from files and dicts, and checkpoints that lose nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc.artifact import write_artifact
from pockc.errors import UserError
from pockc.runtime import Artifact, load
from pockc.runtime.dtypes import BY_NAME, array_from, raw_from
from pockc.runtime.files import replaced_file
from pockc.runtime.safetensors import read_all, read_header
from tests.runtime.toy import N, toy_contents, toy_data

X, TARGET = toy_data(N)


def trained(toy: Artifact, steps: int = 3) -> Artifact:
    for _ in range(steps):
        toy.train_step(X, TARGET, lr=0.2)
    return toy


def test_a_checkpoint_brings_everything_back(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy).save_checkpoint(file)
    state = toy.state_dict()
    expected = [toy.train_step(X, TARGET, lr=0.2) for _ in range(3)]
    toy.load_state(file)
    assert toy.step == 3
    for name, value in state.items():
        np.testing.assert_array_equal(toy.state_dict()[name], value)
    assert [toy.train_step(X, TARGET, lr=0.2) for _ in range(3)] == expected


def test_a_checkpoint_is_a_safetensors_file(toy: Artifact, tmp_path: Path) -> None:
    torch_reader = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "c.safetensors"
    trained(toy).save_checkpoint(file)
    theirs = torch_reader.load_file(file)
    ours = read_all(file)
    assert sorted(theirs) == sorted(ours)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
    np.testing.assert_array_equal(theirs["fc.weight"], toy.state_dict()["fc.weight"])
    assert read_header(file).metadata == {
        "format": "pt",
        "pock.seed": "3",
        "pock.sha256": read_header(file).metadata["pock.sha256"],
        "pock.step": "3",
    }


def test_the_checkpoint_before_is_kept(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy, 1).save_checkpoint(file)
    first = file.read_bytes()
    trained(toy, 1).save_checkpoint(file)
    assert (tmp_path / "c.safetensors.previous").read_bytes() == first != file.read_bytes()
    trained(toy, 1).save_checkpoint(file)
    assert sorted(p.name for p in tmp_path.iterdir() if "c.safe" in p.name) == [
        "c.safetensors",
        "c.safetensors.previous",
    ]


def test_a_dict_of_arrays_begins_anew(toy: Artifact) -> None:
    state = trained(toy).state_dict()
    toy.load_state(state)
    assert toy.step == 0
    assert not toy.state.array("optimizer.momentum.fc.weight").any()
    np.testing.assert_array_equal(toy.state_dict()["fc.weight"], state["fc.weight"])


def test_a_tied_tensor_may_come_under_either_name(toy: Artifact) -> None:
    state = toy.state_dict()
    state["tied.weight"] = state.pop("fc.weight") + 1
    toy.load_state(state)
    np.testing.assert_array_equal(toy.state_dict()["fc.weight"], state["tied.weight"])


def test_a_dict_that_does_not_fit_changes_nothing(toy: Artifact) -> None:
    before = toy.state_dict()
    wrong = dict(before)
    del wrong["mean"]
    wrong["fc.weight"] = np.zeros((3, 5), np.float32)
    wrong["tied.weight"] = wrong["fc.weight"]
    wrong["fc.bias"] = np.zeros(5, np.float64)
    with pytest.raises(UserError) as caught:
        toy.load_state(wrong)
    fix = "    fix  use a checkpoint of this artifact, or a state_dict of the same model"
    what = "[state-mismatch] the given state does not fit this artifact: "
    assert str(caught.value).splitlines() == [
        f"{what}'mean' is missing", fix,
        f"{what}'fc.weight' is f32[3, 5], expected f32[5, 3]", fix,
        f"{what}there is no tensor 'fc.bias'", fix,
    ]  # fmt: skip
    for name, value in before.items():
        np.testing.assert_array_equal(toy.state_dict()[name], value)


def test_a_tensor_that_is_compiled_in_cannot_change(toy: Artifact) -> None:
    state = toy.state_dict()
    state["bn.weight"] = state["bn.weight"] + 1
    with pytest.raises(UserError) as caught:
        toy.load_state(state)
    assert str(caught.value) == (
        "[folded-tensor] 'bn.weight' differs, but it is frozen and part of the compiled code\n"
        "    fix  compile the model again with these weights"
    )


def test_no_checkpoint_is_told(toy: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        toy.load_state(tmp_path / "none")
    assert str(caught.value) == (
        f"[no-checkpoint] there is no checkpoint {tmp_path / 'none'}\n    fix  check the path"
    )


def test_no_tensor_is_told(toy: Artifact) -> None:
    with pytest.raises(UserError, match=r"\[no-tensor\] there is no tensor 'fc.bias'"):
        toy.state.array("fc.bias")


def test_every_truncated_checkpoint_is_refused(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy).save_checkpoint(file)
    whole, before = file.read_bytes(), toy.state_dict()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged-tensors"):
            toy.load_state(file)
    for name, value in toy.state_dict().items():
        np.testing.assert_array_equal(before[name], value)


def test_no_flipped_bit_of_a_checkpoint_gets_into_the_state(
    toy: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy).save_checkpoint(file)
    whole, before = file.read_bytes(), toy.state_dict()
    rng = np.random.default_rng(1)
    refused = 0
    for place in rng.permutation(len(whole))[:500]:
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(0, 8))
        file.write_bytes(content)
        try:
            toy.load_state(file)
        except UserError:
            refused += 1
        assert toy.step == 3
    for name, value in toy.state_dict().items():
        np.testing.assert_array_equal(before[name], value)
    assert refused > 470  # all but those in the name of the hash itself
    file.write_bytes(whole)
    toy.load_state(file)


def test_a_damaged_checkpoint_offers_the_one_before(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy, 1).save_checkpoint(file)
    trained(toy, 1).save_checkpoint(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        toy.load_state(file)
    assert str(caught.value) == (
        f"[damaged-tensors] {file} is no valid safetensors file: its content does not match "
        f"its own hash\n    fix  use the one before it: {file}.previous"
    )
    toy.load_state(f"{file}.previous")
    assert toy.step == 1


def test_a_file_of_another_program_needs_no_hash(toy: Artifact, tmp_path: Path) -> None:
    numpy_writer = pytest.importorskip("safetensors.numpy")
    state = toy.state_dict()
    state["fc.weight"] = state["fc.weight"] * 2
    state["tied.weight"] = state["fc.weight"].copy()
    numpy_writer.save_file(state, tmp_path / "torch.safetensors")
    toy.load_state(tmp_path / "torch.safetensors")
    np.testing.assert_array_equal(toy.state_dict()["fc.weight"], state["fc.weight"])
    assert toy.step == 0


def test_a_buffer_that_is_not_persistent_is_kept_by_the_artifact(
    tmp_path: Path, libraries: dict[str, Path]
) -> None:
    numpy_writer = pytest.importorskip("safetensors.numpy")
    hidden = replace(toy_contents(libraries["plain"]), hidden=frozenset({"mean"}))
    write_artifact(tmp_path / "h.pock", hidden)
    artifact = load(tmp_path / "h.pock")
    mean, state = artifact.state.array("mean"), artifact.state_dict()
    assert "mean" not in state
    assert mean.any()
    artifact.load_state(state)
    np.testing.assert_array_equal(artifact.state.array("mean"), mean)
    numpy_writer.save_file(state, tmp_path / "torch.safetensors")
    artifact.load_state(tmp_path / "torch.safetensors")
    np.testing.assert_array_equal(artifact.state.array("mean"), mean)


def test_a_damaged_header_is_told(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    file.write_bytes((999).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError) as caught:
        toy.load_state(file)
    assert str(caught.value) == (
        f"[damaged-tensors] {file} is no valid safetensors file: its header cannot be 999 of "
        "10 bytes\n    fix  copy the file again"
    )


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
        b"\xff\xff",
    ],
)
def test_no_header_is_believed(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="damaged-tensors"):
        read_header(file)


def test_a_diverged_state_is_not_saved(toy: Artifact, tmp_path: Path) -> None:
    bad = X.copy()
    bad[1, 2] = np.nan
    with pytest.raises(UserError) as caught:
        toy.train_step(bad, TARGET, lr=0.25)
    assert str(caught.value) == (
        "[nonfinite-loss] the loss of step 1 is nan, with learning rate 0.25\n"
        "    fix  lower the learning rate or clip gradients, check the data for NaN, and go on "
        "from the last checkpoint: load_state"
    )
    for save in (toy.save_checkpoint, toy.save):
        with pytest.raises(UserError) as caught:
            save(tmp_path / "new")
        assert str(caught.value) == (
            "[nonfinite-state] the state is not saved: 'fc.weight' is NaN or infinite\n"
            "    fix  go on from the last good checkpoint: load_state"
        )
    assert not (tmp_path / "new").exists()


def test_saving_over_something_else_is_refused(toy: Artifact, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="foreign-folder"):
        toy.save(precious)
    assert (precious / "thesis.txt").read_text() == "years"


def full_disk(_handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_loses_nothing(
    toy: Artifact, toy_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.safetensors"
    trained(toy).save_checkpoint(file)
    toy.save(toy_path)
    before = {p: p.read_bytes() for p in [file, *toy_path.iterdir()]}
    trained(toy)
    monkeypatch.setattr(os, "fsync", full_disk)
    for save, path in ((toy.save_checkpoint, file), (toy.save, toy_path)):
        with pytest.raises(UserError) as caught:
            save(path)
        assert str(caught.value) == (
            f"[write-failed] cannot write {path}: No space left on device; what was there "
            "before is untouched\n    fix  free some space, or choose another place"
        )
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "toy.pock"]
    assert load(toy_path).step == 3


LIMITED = """
import resource, signal, sys, numpy, pockc
artifact = pockc.load(sys.argv[1])
artifact.train_step(numpy.ones((4, 3), "f"), numpy.zeros(4, int))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
for save, path in ((artifact.save_checkpoint, sys.argv[2]), (artifact.save, sys.argv[1])):
    try:
        save(path)
    except pockc.UserError as error:
        print(str(error).splitlines()[0])
"""


def test_a_write_that_ends_half_way_loses_nothing(
    toy: Artifact, toy_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.safetensors"
    toy.save_checkpoint(file)
    before = {p: p.read_bytes() for p in [file, *toy_path.iterdir()]}
    command = [sys.executable, "-c", LIMITED, str(toy_path), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"[write-failed] cannot write {path}: File too large; "
        "what was there before is untouched"
        for path in (file, toy_path)
    ]
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "toy.pock"]


def test_a_file_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with replaced_file(path) as file:
        file.write(b"first")
        with pytest.raises(UserError) as caught, replaced_file(path):
            raise AssertionError("two writers at once")
    assert str(caught.value) == (
        f"[write-busy] another process is writing {path}\n"
        "    fix  wait for it, or choose another place"
    )
    assert path.read_bytes() == b"first"


def test_an_error_while_writing_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replaced_file(path) as file:
            file.write(b"half of the n")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


SAVER = """
import sys, numpy, pockc
artifact = pockc.load(sys.argv[1])
x, target = numpy.ones((4, 3), "f"), numpy.zeros(4, int)
print("ready", flush=True)
while True:
    artifact.train_step(x, target)
    artifact.save_checkpoint(sys.argv[2])
    artifact.save(sys.argv[1])
    print("saved", flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_good_artifact_and_checkpoint(
    toy_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.safetensors"
    rng = np.random.default_rng(5)
    steps = 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, str(toy_path), str(file)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(int(rng.integers(1, 4))):
                assert child.stdout.readline() in (b"ready\n", b"saved\n")
            time.sleep(float(rng.uniform(0, 0.02)))
            child.send_signal(signal.SIGKILL)
        artifact = load(toy_path)
        assert artifact.step >= steps
        steps = artifact.step
        if file.exists():
            artifact.load_state(file)
            assert artifact.step in (steps, steps + 1)
            assert artifact.train_step(X, TARGET) > 0
    assert steps > 0
    # Nothing piles up: at most what the last kill left behind.
    left = {p.name for p in tmp_path.iterdir()}
    assert left <= {
        "toy.pock", ".toy.pock.tmp",
        "c.safetensors", ".c.safetensors.tmp",
        "c.safetensors.previous", "c.safetensors.previous.new",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kept"),
    [(1.0, 1.0), (-0.0, -0.0), (1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (np.inf, np.inf)],
)
def test_bf16_rounds_to_the_nearest_even(value: float, kept: float) -> None:
    raw = raw_from(np.array([value], np.float32), BY_NAME["bf16"])
    found = array_from(raw, BY_NAME["bf16"])
    np.testing.assert_array_equal(found, np.array([kept], np.float32))


def test_bf16_keeps_nan() -> None:
    nan: Any = np.array([0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(array_from(raw_from(nan, BY_NAME["bf16"]), BY_NAME["bf16"])).all()
