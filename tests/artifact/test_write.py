"""The artifact's folder, as the compiler writes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc.artifact import check_files, read_manifest, write_artifact
from pockc.backends.native import machine_for
from pockc.errors import InternalError, UserError
from pockc.ir.roles import OptState
from pockc.runtime import load, opening
from pockc.runtime.opening import read_graph_text
from pockc.runtime.safetensors import read_all
from tests.runtime.toy import SCALE, link_toy, toy_contents, toy_data, toy_values


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_toy(tmp_path_factory.mktemp("toy"))


def test_the_folder_holds_standard_formats(tmp_path: Path, library: Path) -> None:
    path = tmp_path / "toy.pock"
    manifest = write_artifact(path, toy_contents(library))
    assert sorted(p.name for p in path.iterdir()) == [
        "frozen.safetensors", "graph.txt.xz", "manifest.json", "state.safetensors", "step.so",
    ]  # fmt: skip
    data = json.loads((path / "manifest.json").read_text())
    assert (data["format"], data["format_version"]) == ("pock-artifact", 2)
    assert sorted(data["files"]) == sorted(
        p.name for p in path.iterdir() if p.suffix != ".json"
    )
    state = read_all(path / "state.safetensors")
    frozen = read_all(path / "frozen.safetensors")
    assert sorted(state) == ["fc.weight", "last_seed"]
    pads = ["pock.pad.12", "pock.pad.68"]
    assert sorted(frozen) == ["bn.weight", "constant.scale", "mean", *pads]
    for name, value in toy_values().items():
        np.testing.assert_array_equal((state | frozen)[name], value)
    np.testing.assert_array_equal(frozen["constant.scale"], SCALE)
    assert read_manifest(path) == manifest
    check_files(path, manifest)


def test_equal_contents_give_equal_bytes(tmp_path: Path, library: Path) -> None:
    write_artifact(tmp_path / "a", toy_contents(library))
    (tmp_path / "deeper").mkdir()
    write_artifact(tmp_path / "deeper" / "b", toy_contents(library))
    for file in sorted((tmp_path / "a").iterdir()):
        assert (tmp_path / "deeper" / "b" / file.name).read_bytes() == file.read_bytes()


def test_the_manifest_says_what_inspect_shows(tmp_path: Path, library: Path) -> None:
    manifest = write_artifact(tmp_path / "a", toy_contents(library))
    assert manifest.tensors["fc.weight"].trained == 15
    assert manifest.tensors["bn.weight"].trained == 0
    assert manifest.tensors["mean"].kind == "buffer"
    assert manifest.tensors["optimizer.momentum.fc.weight"].kind == "opt_state"
    assert manifest.entries["train_step"].multiply_adds == 120
    assert manifest.entries["train_step"].steps == 6
    assert manifest.memory == {
        "state_bytes": 256,
        "frozen_bytes": 128,
        "arena_bytes": 896,
    }
    assert [i.name for i in manifest.entries["evaluate"].inputs] == ["x", "target"]
    assert [o.name for o in manifest.entries["predict"].outputs] == ["0"]
    assert [o.batched for o in manifest.entries["train_step"].outputs] == [False]


def test_the_optimizer_may_begin_with_numbers(tmp_path: Path, library: Path) -> None:
    key = OptState("momentum", "fc.weight")
    begin = np.full((5, 3), 0.25, np.float32)
    contents = replace(toy_contents(library), initial={key: begin})
    write_artifact(tmp_path / "a", contents)
    artifact = load(tmp_path / "a")
    np.testing.assert_array_equal(artifact.state.array("optimizer.momentum.fc.weight"), begin)


def test_an_older_artifact_is_replaced(tmp_path: Path, library: Path) -> None:
    path = tmp_path / "a"
    write_artifact(path, toy_contents(library))
    write_artifact(path, replace(toy_contents(library), graph_text="graph new\n"))
    assert read_graph_text(path) == "graph new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert load(path).predict(toy_data(2)[0]) is not None


def test_a_foreign_folder_is_left_alone(tmp_path: Path, library: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"cat")
    with pytest.raises(UserError) as caught:
        write_artifact(tmp_path, toy_contents(library))
    assert str(caught.value) == (
        f"[foreign-folder] {tmp_path} is no artifact: it has no manifest.json\n"
        "    fix  give a folder that `pockc compile` or `artifact.save` wrote"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_an_artifact_of_another_version_may_be_replaced(tmp_path: Path, library: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "manifest.json").write_text('{"format": "pock-artifact", "format_version": 0}')
    write_artifact(path, toy_contents(library))
    assert load(path).step == 0


def test_tensors_that_do_not_fit_the_plan_are_told(tmp_path: Path, library: Path) -> None:
    values = toy_values()
    del values["mean"]
    values["fc.weight"] = values["fc.weight"].T
    with pytest.raises(InternalError) as caught:
        write_artifact(tmp_path / "a", replace(toy_contents(library), values=values))
    assert str(caught.value) == (
        "[artifact-values] the program holds fc.weight as f32[5,3; 1,0], the model has shape "
        "[3, 5]\n"
        "[artifact-values] the program holds mean as f32[3], the model has nothing"
    )
    assert not (tmp_path / "a").exists()


def test_a_machine_is_what_the_triple_and_the_features_say() -> None:
    pi = machine_for("rpi5", "aarch64-linux-gnu", "cortex-a76", ["atomics", "asimddp"])
    assert (pi.arch, pi.features) == ("aarch64", ("atomics", "asimddp"))
    assert machine_for("armv7", "armv7l-linux-gnueabihf", "cortex-a7").arch == "armv7l"
    assert isinstance(opening.cpu_features(), frozenset)
