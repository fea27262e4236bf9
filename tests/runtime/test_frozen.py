"""What no step changes is mapped from its file: laid out as memory, read-only, never copied."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc.artifact import write_artifact
from pockc.backends.native import HOST, link, product_of
from pockc.errors import UserError
from pockc.ir.roles import Batch, Param, Prediction
from pockc.ir.types import DType, TensorType
from pockc.plan.types import (
    EntryPlan,
    InputPort,
    OutputPort,
    Place,
    Plan,
    Space,
    StateLayout,
    StateSlot,
    Step,
)
from pockc.runtime import Artifact, load
from pockc.runtime.frozen import FrozenFile
from pockc.runtime.manifest import STEP_FILE
from pockc.runtime.safetensors import read_all, read_header
from tests.runtime.toy import N, run_python, toy_contents, toy_data, toy_machine

X, TARGET = toy_data(N)
MIB = 1 << 20


def test_the_file_is_laid_out_as_memory(toy: Artifact, toy_path: Path) -> None:
    header = read_header(toy_path / "frozen.safetensors")
    assert header.data_begin % 64 == 0
    places = {n: t.begin - header.data_begin for n, t in header.tensors.items()}
    assert places == {
        "mean": 0, "pock.pad.12": 12, "constant.scale": 64, "pock.pad.68": 68, "bn.weight": 128
    }  # fmt: skip
    assert toy.memory.frozen_bytes == 128


def test_other_readers_read_the_file(toy_path: Path) -> None:
    theirs = pytest.importorskip("safetensors.numpy").load_file(toy_path / "frozen.safetensors")
    for name, value in read_all(toy_path / "frozen.safetensors").items():
        np.testing.assert_array_equal(theirs[name], value)


def test_training_leaves_the_file_and_its_mapping_alone(toy: Artifact, toy_path: Path) -> None:
    file = toy_path / "frozen.safetensors"
    before = hashlib.sha256(file.read_bytes()).digest()
    mean = toy.state.array("mean")
    toy.train_step(X, TARGET)
    toy.save(toy_path)
    assert hashlib.sha256(file.read_bytes()).digest() == before
    np.testing.assert_array_equal(toy.state.array("mean"), mean)


def test_frozen_tensors_may_be_given_other_values(toy: Artifact, toy_path: Path) -> None:
    plain = toy.predict(X)
    state = toy.state_dict()
    state["mean"] = state["mean"] + 1
    toy.load_state(state)
    moved = toy.predict(X)
    assert not np.array_equal(plain, moved)
    assert "pock.frozen" not in _metadata(toy, toy_path.parent / "c.safetensors", full=False)
    toy.save(toy_path)
    toy.save(toy_path.parent / "other.pock")
    for path in (toy_path, toy_path.parent / "other.pock"):
        again = load(path)
        np.testing.assert_array_equal(again.state.array("mean"), state["mean"])
        np.testing.assert_array_equal(again.state.array("bn.weight"), state["bn.weight"])
        np.testing.assert_array_equal(again.predict(X), moved)


def _metadata(artifact: Artifact, path: Path, *, full: bool) -> dict[str, str]:
    artifact.save_checkpoint(path, full=full)
    return dict(read_header(path).metadata)


def test_a_small_checkpoint_has_what_steps_change(toy: Artifact, tmp_path: Path) -> None:
    small, full = tmp_path / "small.safetensors", tmp_path / "full.safetensors"
    toy.train_step(X, TARGET)
    toy.save_checkpoint(full)
    toy.save_checkpoint(small, full=False)
    momentum = "optimizer.momentum.fc.weight"
    assert sorted(read_all(small)) == ["fc.weight", "last_seed", momentum]
    assert sorted(read_all(full)) == ["bn.weight", "fc.weight", "last_seed", "mean", momentum]
    state = toy.state_dict()
    expected = toy.train_step(X, TARGET)
    toy.load_state({n: v + 1 if n == "mean" else v for n, v in state.items()})
    toy.load_state(small)
    assert toy.step == 1
    for name, value in state.items():
        np.testing.assert_array_equal(toy.state_dict()[name], value)
    assert toy.train_step(X, TARGET) == expected


def test_a_small_checkpoint_of_another_artifact_is_refused(
    tmp_path: Path, toy: Artifact, libraries: dict[str, Path]
) -> None:
    contents = toy_contents(libraries["plain"])
    values = dict(contents.values) | {"mean": np.ones(3, np.float32)}
    write_artifact(tmp_path / "other.pock", replace(contents, values=values))
    file = tmp_path / "c.safetensors"
    other = load(tmp_path / "other.pock")
    other.save_checkpoint(file, full=False)
    theirs = other.manifest.files["frozen.safetensors"].sha256
    ours = toy.manifest.files["frozen.safetensors"].sha256
    with pytest.raises(UserError) as caught:
        toy.load_state(file)
    assert str(caught.value) == (
        f"[state-mismatch] {file} does not fit this artifact: its frozen tensors have hash "
        f"{theirs}, the artifact's {ours}\n"
        "    fix  use a checkpoint of this artifact, or a state_dict of the same model"
    )


def test_a_file_that_is_laid_out_otherwise_is_refused(toy: Artifact, tmp_path: Path) -> None:
    file = toy.path / "frozen.safetensors"
    head = read_header(file).data_begin
    content = file.read_bytes()
    header = json.loads(content[8:head])
    header["mean"]["data_offsets"], header["pock.pad.12"]["data_offsets"] = [52, 64], [0, 52]
    text = json.dumps(header, separators=(",", ":")).encode()
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(content[:8] + text.ljust(head - 8) + content[head:])
    with pytest.raises(
        UserError, match=r"\[damaged-tensors\].*'mean' is not where the program"
    ):
        FrozenFile.open(moved).check(toy._library)


TABLE = TensorType((1 << 16, 256), DType.F32)  # rows of 1 KiB
ROW = TensorType((256,), DType.F32)
READ = """
import sys, json, numpy, pockc.runtime
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return {k: 1024 * int(v.split()[0]) for k, v in (l.split(":") for l in lines if "kB" in l)}
x = numpy.ones(256, "f")
pockc.runtime.opening.sha256_of(__import__("pathlib").Path(sys.executable))
before = resident()
artifact = pockc.runtime.load(sys.argv[1])
y = artifact.run("read", x)["0"]
after = resident()
print(json.dumps([
    after["RssFile"] - before["RssFile"], after["RssAnon"] - before["RssAnon"], y.tolist()
]))
"""


@pytest.mark.slow
def test_rows_that_are_never_read_take_no_memory(tmp_path: Path) -> None:
    rows = range(0, 1 << 16, 256)  # pages of 256 rows are read, all over the 64 MiB
    slot = StateSlot(Param("table"), TABLE, 0, None, Space.FROZEN, gathered=True)
    source, target = (Place(Space.ARENA, i * ROW.nbytes, ROW.nbytes) for i in range(2))
    places = [Place(Space.FROZEN, 1024 * row, ROW.nbytes) for row in rows]
    entry = EntryPlan(
        "read",
        tuple(Step("pk_copy", (place, target), "y") for place in places),
        (InputPort(Batch("x"), ROW, source),),
        (OutputPort(Prediction("0"), ROW, target),),
        2048,
        2048,
    )
    plan = Plan(StateLayout((slot,), 0, TABLE.nbytes), (entry,), 2048, 192)
    link(plan, {}, tmp_path / "step.so", HOST)
    table = np.random.default_rng(0).random(TABLE.shape, np.float32)
    product = product_of(plan, {STEP_FILE: tmp_path / "step.so"}, toy_machine())
    contents = replace(
        toy_contents(tmp_path / "step.so"),
        product=product,
        values={"table": table},
        buffers=frozenset(),
        aliases={},
        trained={},
    )
    write_artifact(tmp_path / "big.pock", contents)
    code = f"import sys; sys.argv[1:] = [{str(tmp_path / 'big.pock')!r}]\n{READ}"
    file_bytes, private_bytes, y = json.loads(run_python(code))
    np.testing.assert_array_equal(np.array(y, np.float32), table[rows[-1]])
    assert private_bytes < 4 * MIB
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=False
    )
    if kind.stdout.strip() == "tmpfs":
        pytest.skip("a file in memory cannot be let go")
    # One page for each row, and the code; with neighbours they would be 16 MiB.
    assert file_bytes < 4 * MIB
