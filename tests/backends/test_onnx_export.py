"""Inference models whose weights lie in a file beside them, as they do above a size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from pockc import driver, runtime
from pockc.backends.onnx.inference import inference_model, save
from pockc.backends.onnx.weights import INLINE_BYTES
from pockc.cli.exporting import export, state_of
from pockc.cli.onnx_export import SPLIT_BYTES
from pockc.frontend.loading import UserModel
from pockc.ir import DType
from tests import nets
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


@pytest.fixture(scope="module", params=["onnx", "tvm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "net.pock"
    user = UserModel(nets.make("resnet"), nets.batches("resnet", 8, 1)[0][:-1])
    config = driver.read_config({"preset": "last:1"}, {"optimizer": "sgd"})
    driver.build(user, config, path, driver.Options(backend=request.param))
    return path


def predictions(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (i.name for i in session.get_inputs())
    found: np.ndarray = session.run(None, {name: x})[0]
    return found


def test_weights_beside_the_model_are_those_inside_it(folder: Path, tmp_path: Path) -> None:
    values, _ = state_of(folder)
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    assert save(inference_model(folder, values), inside, SPLIT_BYTES) == [inside]
    files = save(inference_model(folder, values), outside, split_bytes=0)
    assert files == [tmp_path / "outside.onnx.data", outside]
    model = onnx.load(str(outside), load_external_data=False)
    kept = [t for t in model.graph.initializer if not t.external_data]
    split = [t for t in model.graph.initializer if t.external_data]
    assert all(len(t.raw_data) <= INLINE_BYTES for t in kept)
    stored = load_file(tmp_path / "outside.onnx.data")
    assert {t.name for t in split} == {n for n in stored if not n.startswith("pock.pad.")}
    assert outside.stat().st_size < inside.stat().st_size / 2
    (x,) = nets.batches("resnet", 8, 1)[0][:1]
    np.testing.assert_array_equal(
        predictions(outside, x.numpy()), predictions(inside, x.numpy())
    )


def test_a_model_with_its_weights_beside_it_predicts_as_the_artifact(
    folder: Path, tmp_path: Path
) -> None:
    values, _ = state_of(folder)
    doubled = {n: (2 * v if n.startswith("fc") else v) for n, v in values.items()}
    (x,) = nets.batches("resnet", 8, 1)[0][:1]
    with runtime.load(folder) as artifact:
        (expected,) = artifact.run("predict", x.numpy()).values()
    paths = tmp_path / "right.onnx", tmp_path / "wrong.onnx"
    for path, given in zip(paths, (values, doubled), strict=True):
        save(inference_model(folder, given), path, split_bytes=0)
    close(predictions(paths[0], x.numpy()), expected, tolerance(DType.F32, "training"))
    with pytest.raises(AssertionError):
        close(predictions(paths[1], x.numpy()), expected, tolerance(DType.F32, "training"))


def test_an_export_replaces_both_files_of_an_older_one(folder: Path, tmp_path: Path) -> None:
    target, data = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    data.write_bytes(b"older")
    assert "checked against predict" in export(folder, target, split_bytes=0)
    assert {f.name for f in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert load_file(data)
