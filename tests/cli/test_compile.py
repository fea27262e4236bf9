"""The whole path from a model's file, by the command line alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pockc.frontend.batch import with_batch
from pockc.frontend.loading import UserModel
from pockc.runtime import load, read_manifest
from tests.cli.small import write_model
from tests.support import Command

MODEL = """\
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
example_inputs = (torch.zeros(4, 6),)
class_names = ("low", "middle", "high")
"""
CONFIG = """\
optimizer: {name: sgd, lr: 0.1}
update:
  - {match: "0", train: bias}
  - {match: "2", train: all}
"""


def write_data(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    label = np.digitize(x[:, 0] + x[:, 1], (-0.6, 0.6))
    np.savez(folder / "data.npz", x=x, y=label)
    return folder / "data.npz"


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_from_a_models_file_to_weights_that_the_module_loads(
    pockc: Command, tmp_path: Path
) -> None:
    model, config = tmp_path / "net.py", tmp_path / "config.yaml"
    model.write_text(MODEL, encoding="utf-8")
    config.write_text(CONFIG, encoding="utf-8")
    artifact, data, dump = tmp_path / "net.pock", write_data(tmp_path), tmp_path / "dump"
    status, out, err = pockc(
        *("compile", model, "--sparse-update", config, "-o", artifact, "--batch", 8),
        *("--lr", 0.2, "--dump-passes", dump),
    )
    assert (status, err) == (0, "")
    assert re.search(r"trained parameters +67 +163 +41\.1 %", out)
    assert re.search(r"2\.weight +3x16 +48 +1 +update\[1\] 2: all", out)
    assert re.search(rf"wrote {artifact} \(.*\) in ", out)
    assert (dump / "train_step" / "00_input.pock").exists()
    with load(artifact) as opened:
        assert opened.batch_rows == 8
        assert opened.manifest.learning_rate == pytest.approx(0.2)
        frozen = opened.state_dict()["0.weight"]
    assert pockc("train", artifact, "--data", data, "--epochs", 20)[0] == 0
    _, out, _ = pockc("eval", artifact, "--data", data)
    accuracy = float(re.search(r"accuracy ([\d.]+)", out)[1])  # type: ignore[index]
    assert accuracy > 0.65  # guessing gives a third
    _, out, _ = pockc("predict", artifact, "--data", data)
    assert set(re.findall(r": (\w+) ", out)) == {"low", "middle", "high"}
    _, out, _ = pockc("inspect", artifact, "--all")
    assert "saved activations" in out
    assert "Kernels" in out
    weights = tmp_path / "state_dict.safetensors"
    pockc("export", artifact, "--to", weights)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    module.load_state_dict(load_file(weights), strict=True)
    np.testing.assert_array_equal(module[0].weight.detach().numpy(), frozen)
    with np.load(data) as file, torch.no_grad():
        found = (module(torch.from_numpy(file["x"])).argmax(1).numpy() == file["y"]).mean()
    assert found == pytest.approx(accuracy, abs=1e-4)


@pytest.mark.needs_torch
def test_a_typo_in_the_configuration_is_told_before_the_model_is_loaded(
    pockc: Command, tmp_path: Path
) -> None:
    model, config = tmp_path / "net.py", tmp_path / "config.yaml"
    model.write_text("raise RuntimeError('loaded')", encoding="utf-8")
    config.write_text("presets: full\n", encoding="utf-8")
    status, out, err = pockc("compile", model, "--sparse-update", config)
    assert (status, out) == (1, "")
    assert err == (
        "[config-key] unknown key 'presets'; did you mean preset?\n"
        f"    at   {config}:1: presets\n"
        "    fix  choose from: optimizer, loss, preset, update, clip_norm, accumulate, "
        "batch_norm, recompute\n"
    )


@pytest.mark.needs_torch
def test_examples_are_repeated_or_cut_to_the_wanted_batch() -> None:
    x, scale = torch.arange(6.0).reshape(3, 2), torch.ones(2)
    user = UserModel(nn.Identity(), (x, scale), target_example=torch.tensor([0, 1, 2]))
    five = with_batch(user, 5)
    assert five.example_inputs[0][:, 0].tolist() == [0, 2, 4, 0, 2]
    assert five.example_inputs[1] is scale
    assert five.target_example.tolist() == [0, 1, 2, 0, 1]
    named = with_batch(UserModel(nn.Identity(), {"x": x}), 1)
    assert named.example_inputs["x"].shape == (1, 2)


@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_a_target_of_tvm_makes_a_folder_that_a_bare_board_runs(
    pockc: Command, tmp_path: Path
) -> None:
    model = tmp_path / "net.py"
    model.write_text(MODEL, encoding="utf-8")
    target = "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73"
    for options, programs in ((), {"pock-run", "libpock.so"}), (("--static",), {"pock-run"}):
        artifact = tmp_path / f"net{len(options)}.pock"
        status, _, err = pockc("compile", model, "--target", target, "-o", artifact, *options)
        assert (status, err) == (0, "")
        manifest = read_manifest(artifact)
        machine = manifest.machine
        assert (machine.target, machine.arch, machine.cpu) == (
            "cortex-a73",
            "aarch64",
            "cortex-a73",
        )
        # Listed in the manifest, so that they are verified, and saved with the weights.
        assert set(manifest.files) & {"pock-run", "libpock.so"} == programs
        for name in programs:
            assert (artifact / name).stat().st_mode & 0o111 == 0o111
            assert int.from_bytes((artifact / name).read_bytes()[18:20], "little") == 183


@pytest.mark.slow
@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_the_source_of_a_published_scheme_is_shown_and_kept(
    pockc: Command, tmp_path: Path
) -> None:
    artifact = tmp_path / "model.pock"
    model = write_model(tmp_path) / "model.py"
    for words in (
        ("compile", model, "--preset", "pockengine", "--threads", 1, "-o", artifact),
        ("inspect", artifact),
    ):
        status, out, err = pockc(*words)
        assert status == 0, err
        assert "preset pockengine: resnet50, carried over to 3 blocks" in " ".join(out.split())
        assert "(from memory: not checked against its text)" in " ".join(out.split())
