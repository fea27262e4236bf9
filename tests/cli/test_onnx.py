"""The same commands on artifacts of ONNX models, and ONNX files out and in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from pockc.cli.app import run
from pockc.ir import DType
from pockc.runtime.safetensors import read_all
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                      nn.Linear(128, 5))
example_inputs = (torch.zeros(4, 3, 8, 8),)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-onnx")
    (folder / "model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", input=x, target=rng.integers(0, 5, 24))
    return folder


def eager(weights: Path, x: np.ndarray) -> np.ndarray:
    space: dict[str, object] = {}
    exec(MODEL, space)
    model = space["model"]
    assert isinstance(model, torch.nn.Module)
    state = {n: torch.from_numpy(a) for n, a in read_all(weights).items()}
    model.eval().load_state_dict(state, strict=True)
    result: np.ndarray = model(torch.from_numpy(x)).detach().numpy()
    return result


@pytest.mark.parametrize("backend", ["onnx", "tvm"])
def test_what_is_tuned_predicts_alike_everywhere(
    backend: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, data = str(tmp_path / "m.pock"), str(place / "data.npz")
    model = str(place / "model.py")
    assert run(["compile", model, "-o", artifact, "--backend", backend, "--optimizer", "sgd",
                "--lr", "0.05"]) == 0  # fmt: skip
    assert run(["train", artifact, "--data", data, "--eval", data, "--epochs", "3"]) == 0
    assert run(["eval", artifact, "--data", data]) == 0
    assert run(["inspect", artifact]) == 0
    assert run(["predict", artifact, "--data", data, "-o", str(tmp_path / "out.npz")]) == 0
    assert run(["export", artifact, "--to", str(tmp_path / "tuned.safetensors")]) == 0
    assert run(["export", artifact, "--to", str(tmp_path / "tuned.onnx")]) == 0
    assert "checked against predict" in capsys.readouterr().out.replace("\n", " ")
    x = np.load(data)["input"]
    allowed = tolerance(DType.F32, "training")
    expected = eager(tmp_path / "tuned.safetensors", x)
    close(np.load(tmp_path / "out.npz")["output0"], expected, allowed)
    session = onnxruntime.InferenceSession(str(tmp_path / "tuned.onnx"))
    (entry,) = session.get_inputs()
    close(session.run(None, {entry.name: x[:4]})[0], expected[:4], allowed)


def test_a_tuned_model_can_be_tuned_on_as_onnx(place: Path, tmp_path: Path) -> None:
    artifact, data = str(tmp_path / "m.pock"), str(place / "data.npz")
    model = str(place / "model.py")
    assert run(["compile", model, "-o", artifact, "--backend", "onnx"]) == 0
    assert run(["export", artifact, "--to", str(tmp_path / "m.onnx")]) == 0
    again = str(tmp_path / "again.pock")
    command = ["compile", str(tmp_path / "m.onnx"), "-o", again, "--loss", "cross_entropy"]
    assert run(command) == 0
    assert run(["train", again, "--data", data]) == 0


def test_a_model_that_predicts_otherwise_is_not_written(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pockc.cli import exporting

    artifact = str(tmp_path / "m.pock")
    command = ["compile", str(place / "model.py"), "-o", artifact, "--backend", "onnx"]
    assert run(command) == 0
    right = exporting.write_model

    def wrong(
        path: Path, folder: Path, values: dict[str, np.ndarray], split_bytes: int
    ) -> list[Path]:
        return right(path, folder, {n: 2 * v for n, v in values.items()}, split_bytes)

    monkeypatch.setattr(exporting, "write_model", wrong)
    assert run(["export", artifact, "--to", str(tmp_path / "m.onnx")]) == 1
    assert "export-mismatch" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_a_native_artifact_has_no_providers(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = str(tmp_path / "m.pock")
    assert run(["compile", str(place / "model.py"), "-o", artifact]) == 0
    command = ["eval", artifact, "--data", str(place / "data.npz"), "--provider", "cuda"]
    assert run(command) == 1
    assert "no-provider" in capsys.readouterr().err
