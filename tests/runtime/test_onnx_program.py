"""The state of an ONNX artifact: it stays where it is, and is saved and loaded as any other."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from pockc import driver, runtime
from pockc.backends.onnx.weights import INLINE_BYTES
from pockc.errors import UserError
from pockc.frontend.loading import UserModel
from pockc.ir.parser import parse_graph
from pockc.runtime.frozen import CONSTANT
from pockc.runtime.onnx_program import OnnxProgram
from pockc.runtime.safetensors import read_header
from tests import nets
from tests.parity.reference import arrays

pytestmark = pytest.mark.needs_torch


def compiled(path: Path, net: str = "mobilenet", **overrides: Any) -> Path:
    user = UserModel(nets.make(net), nets.batches(net, 8, 1)[0][:-1])
    config = driver.read_config({"preset": "full"}, {"optimizer": "adamw", **overrides})
    driver.build(user, config, path, driver.Options(backend="onnx", threads=2))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("onnx") / "net.pock")


def program_of(artifact: runtime.Artifact) -> OnnxProgram:
    program = artifact._library
    assert isinstance(program, OnnxProgram)
    return program


def resident_bytes() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_a_hundred_steps_neither_grow_nor_move_the_state(folder: Path) -> None:
    batch = arrays(nets.batches("mobilenet", 8, 1)[0])
    with runtime.load(folder, threads=2) as artifact:
        program = program_of(artifact)
        for _ in range(10):
            artifact.train_step(*batch)
        before = {
            n: [b.value.data_ptr() for b in slot.buffers] for n, slot in program._slots.items()
        }
        bindings = [id(b) for b in program._models["train_step"].bindings.values()]
        began = resident_bytes()
        for _ in range(100):
            artifact.train_step(*batch)
        grown = resident_bytes() - began
        after = {
            n: [b.value.data_ptr() for b in slot.buffers] for n, slot in program._slots.items()
        }
        assert after == before
        # The two sets of buffers take turns: nothing was bound anew, and nothing was copied.
        assert [id(b) for b in program._models["train_step"].bindings.values()] == bindings
        assert len(bindings) == 2
    assert grown < 1 << 20


def test_outputs_are_written_where_the_next_step_reads(folder: Path) -> None:
    batch = arrays(nets.batches("mobilenet", 8, 1)[0])
    with runtime.load(folder, threads=2) as artifact:
        program = program_of(artifact)
        slot = program._slots["classifier.weight"]
        artifact.train_step(*batch)
        host = slot.now.host
        assert host is not None
        assert slot.now.value.data_ptr() == host.ctypes.data
        np.testing.assert_array_equal(host, artifact.state.array("classifier.weight"))


def test_moments_have_one_buffer_and_weights_that_gradients_pass_have_two(folder: Path) -> None:
    with runtime.load(folder) as artifact:
        program = program_of(artifact)
        counts = {n: len(s.buffers) for n, s in program._slots.items()}
    assert counts["optimizer.mean.blocks.1.expand.0.weight"] == 1
    assert counts["classifier.bias"] == 1
    assert counts["blocks.1.expand.0.weight"] == 2


def test_a_saved_artifact_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    batches = [arrays(b) for b in nets.batches("mobilenet", 8, 6)]
    with runtime.load(folder) as whole:
        expected = [whole.train_step(*b) for b in batches]
    with runtime.load(folder) as first:
        for b in batches[:3]:
            first.train_step(*b)
        first.save(tmp_path / "half.pock")
        first.save_checkpoint(tmp_path / "half.safetensors")
    with runtime.load(tmp_path / "half.pock") as second:
        assert second.step == 3
        assert [second.train_step(*b) for b in batches[3:]] == expected[3:]
    with runtime.load(folder) as third:
        third.load_state(tmp_path / "half.safetensors")
        assert [third.train_step(*b) for b in batches[3:]] == expected[3:]


def test_seeds_are_those_of_the_native_runtime(folder: Path, tmp_path: Path) -> None:
    user = UserModel(nets.make("mlp"), nets.batches("mlp", 8, 1)[0][:-1])
    config = driver.read_config({"preset": "full"}, {})
    driver.build(user, config, tmp_path / "native.pock", driver.Options(threads=2))
    with runtime.load(folder) as ours, runtime.load(tmp_path / "native.pock") as native:
        for seed in (0, 7, -5, 2**62):
            ours.seed = native.seed = seed
            assert [ours.step_seed(s, m) for s in (1, 99) for m in (0, 3)] == [
                native.step_seed(s, m) for s in (1, 99) for m in (0, 3)
            ]


def test_a_loss_that_is_not_finite_is_told(folder: Path) -> None:
    x, target = arrays(nets.batches("mobilenet", 8, 1)[0])
    with runtime.load(folder) as artifact:
        with pytest.raises(UserError, match="nonfinite-loss"):
            artifact.train_step(np.full_like(x, np.nan), target)
        assert artifact.step == 0


def test_a_provider_that_is_not_there_is_told_with_the_choices(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        runtime.load(folder, providers=["cudda"])
    text = str(caught.value)
    assert "[no-provider] this onnxruntime has no execution provider 'cudda'" in text
    assert "cpu" in text


def test_what_a_provider_cannot_run_is_told(folder: Path) -> None:
    def run(_: object) -> None:
        raise RuntimeError("The Indices output is not supported yet.")

    batch = arrays(nets.batches("mobilenet", 8, 1)[0])
    with runtime.load(folder) as artifact:
        artifact.train_step(*batch)
        model = program_of(artifact)._models["train_step"]
        binding = model.session.io_binding
        model.session = SimpleNamespace(run_with_iobinding=run, io_binding=binding)
        with pytest.raises(UserError) as caught:
            artifact.train_step(*batch)
        assert artifact.step == 1
    text = str(caught.value)
    assert "[onnx-run] ONNX Runtime" in text
    assert "fails on cpu: The Indices output is not supported yet." in text


def test_models_are_standard_readable_and_the_same_every_time(
    folder: Path, tmp_path: Path
) -> None:
    again = compiled(tmp_path / "again.pock")
    for name in ("train_step.onnx", "evaluate.onnx", "predict.onnx", "manifest.json"):
        assert (folder / name).read_bytes() == (again / name).read_bytes()
    onnx.checker.check_model(str(folder / "train_step.onnx"), full_check=True)
    model = onnx.load(str(folder / "train_step.onnx"), load_external_data=False)
    assert {n.domain for n in model.graph.node} == {""}
    assert [o.version for o in model.opset_import] == [21]
    phases = {p.value for n in model.graph.node for p in n.metadata_props if p.key == "phase"}
    assert phases == {"forward", "backward", "update"}
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    assert conv.name.startswith("forward/stem.0/")
    assert "nets.py" in conv.doc_string
    names = {i.name for i in model.graph.input}
    assert {"x", "target", "lr", "step", "stem.0.weight"} <= names
    assert "new.stem.0.weight" in {o.name for o in model.graph.output}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    user = UserModel(nets.make("resnet"), nets.batches("resnet", 8, 1)[0][:-1])
    config = driver.read_config({"preset": "last:1"}, {"optimizer": "sgd"})
    path = tmp_path_factory.mktemp("sparse") / "net.pock"
    driver.build(user, config, path, driver.Options(backend="onnx"))
    return path


def external_data(path: Path) -> dict[str, tuple[str, int, int]]:
    """Return of each large constant of a model the file, where it begins and its bytes."""
    model = onnx.load(str(path), load_external_data=False)
    facts = {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer}
    return {
        n: (f["location"], int(f["offset"]), int(f["length"])) for n, f in facts.items() if f
    }


def test_large_constants_are_one_file_for_all_models(sparse: Path) -> None:
    path = sparse
    models = [path / f"{name}.onnx" for name in ("train_step", "predict")]
    places = [set(external_data(m).values()) for m in models]
    assert places[0]
    assert places[0] & places[1]
    assert {file for file, _, _ in places[0]} == {"frozen.safetensors"}
    assert {begin % 64 for _, begin, _ in places[0] | places[1]} == {0}
    assert os.path.getsize(path / "train_step.onnx") < 200_000


def test_a_frozen_tensor_lies_once_for_models_and_export(sparse: Path) -> None:
    stored = safe_open(sparse / "frozen.safetensors", framework="numpy")
    manifest = runtime.read_manifest(sparse)
    own = {n for n in stored.keys() if not n.startswith("pock.")}  # noqa: SIM118  no mapping
    assert own == {n for n, t in manifest.tensors.items() if t.in_state_dict and not t.trained}
    digests = [
        hashlib.sha256(array.tobytes()).digest()
        for array in map(stored.get_tensor, stored.keys())
        if array.nbytes > INLINE_BYTES
    ]
    assert len(set(digests)) == len(digests)
    header = read_header(sparse / "frozen.safetensors").tensors
    read = external_data(sparse / "train_step.onnx")
    shared = [n for n in read if n in own]
    assert shared
    assert all(
        read[n][1:] == (header[n].begin, header[n].end - header[n].begin) for n in shared
    )


def test_what_only_models_read_is_no_tensor_of_the_users_model(
    sparse: Path, tmp_path: Path
) -> None:
    header = read_header(sparse / "frozen.safetensors").tensors
    assert any(n.startswith(CONSTANT) for n in header), "folded filters"
    model = nets.make("resnet")
    with runtime.load(sparse) as artifact:
        found = artifact.state_dict()
        artifact.save_checkpoint(tmp_path / "whole.safetensors")
    assert set(found) == set(model.state_dict())
    assert not any(
        n.startswith("pock.") for n in read_header(tmp_path / "whole.safetensors").tensors
    )
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_what_may_be_overwritten_is_told_by_the_flow_of_data_alone() -> None:
    from pockc.backends.onnx.in_place import in_place

    text = """graph train_step {
      %w : f32[2,2] = input param "w"
      %m : f32[2,2] = input opt_state "m" "w"
      %v : f32[2,2] = input param "v"
      %x : f32[2,2] = input batch "x"
      %h : f32[2,2] = matmul(%x, %w)
      %g : f32[2,2] = matmul(%h, %x)
      %dx : f32[2,2] = matmul(%g, %v)
      %m2 : f32[2,2] = add(%m, %g)
      %w2 : f32[2,2] = sub(%w, %m2)
      %v2 : f32[2,2] = sub(%v, %g)
      output prediction "0" %dx
      output update "w" %w2
      output state_update "m" "w" %m2
      output update "v" %v2
    }"""
    found = {str(getattr(k, "name", "m")) for k in in_place(parse_graph(text))}
    # The product that reads v is not needed for v's new value: it may come after it.
    assert found == {"w", "m"}


@pytest.mark.parametrize("opset", [17, 99])
def test_an_opset_that_cannot_be_written_is_told_before_anything_runs(opset: int) -> None:
    user = UserModel(nets.make("mlp"), ())
    with pytest.raises(UserError, match="opset"):
        driver.build(
            user,
            driver.read_config(None, {}),
            Path("never.pock"),
            driver.Options(backend="onnx", opset=opset),
        )
