"""ONNX models as input: they compute what PyTorch computes, under the names they bring."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from pockc import driver, runtime
from pockc.errors import UserError
from pockc.frontend.loading import load_model
from pockc.ir import DType
from tests import nets
from tests.parity.reference import EagerTrainer, arrays
from tests.support import close
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_torch


def exported(net: str, folder: Path, rows: int = 8) -> Path:
    """Write a net as ONNX, by the exporter that needs no further package."""
    model, batch = nets.make(net).eval(), nets.batches(net, rows, 1)[0]
    path = folder / f"{net}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [f"in{i}" for i in range(len(batch) - 1)]
        torch.onnx.export(
            model, batch[:-1], str(path), opset_version=17, dynamo=False, input_names=names
        )
    return path


@pytest.mark.parametrize("net", nets.NETS)
def test_a_model_computes_what_it_was_exported_from(net: str, tmp_path: Path) -> None:
    user = load_model(exported(net, tmp_path))
    batch = nets.batches(net, 8, 1)[0][:-1]
    expected = nets.make(net).eval()(*batch)
    given = {f"in{i}": t for i, t in enumerate(batch)}
    close(
        user.model(**given).detach().numpy(),
        expected.detach().numpy(),
        tolerance(DType.F32, "eager"),
    )


@pytest.mark.parametrize("backend", ["tvm", "onnx"])
def test_it_is_trained_as_pytorch_trains_it(backend: str, tmp_path: Path) -> None:
    user = load_model(exported("mlp", tmp_path))
    optimizer = {"name": "sgd", "lr": 0.05}
    config = driver.read_config({"preset": "full"}, {"optimizer": optimizer})
    driver.build(
        user, config, tmp_path / "net.pock", driver.Options(backend=backend, threads=2)
    )
    trained = {n: None for n, _ in nets.make("mlp").named_parameters()}
    eager = EagerTrainer(nets.make("mlp"), trained, optimizer)
    allowed = tolerance(DType.F32, "training")
    with runtime.load(tmp_path / "net.pock") as artifact:
        for batch in nets.batches("mlp", 8, 10):
            loss, expected = artifact.train_step(*arrays(batch)), eager.step(*batch)
            close(np.float32(loss), np.float32(expected), allowed)
        state = artifact.state_dict()
    for name, value in eager.arrays().items():
        close(state[name], value, allowed)


def written(path: Path, nodes: list[onnx.NodeProto], shape: list[object]) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [value], [result])
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), str(path))
    return path


def test_operators_that_are_not_covered_are_told_together(tmp_path: Path) -> None:
    nodes = [helper.make_node("Det", ["x"], ["a"]), helper.make_node("Bernoulli", ["a"], ["y"])]
    with pytest.raises(UserError) as caught:
        load_model(written(tmp_path / "m.onnx", nodes, [2, 2]))
    assert str(caught.value) == (
        "[onnx-operator] operator Bernoulli, 1 times in the model, is not covered\n"
        "    fix  export the model again with plain operators, or write model.py\n"
        "[onnx-operator] operator Det, 1 times in the model, is not covered\n"
        "    fix  export the model again with plain operators, or write model.py"
    )


def test_sizes_that_are_left_open_are_told_and_rows_are_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    user = load_model(written(tmp_path / "rows.onnx", nodes, ["N", 3]))
    assert user.example_inputs["x"].shape == (1, 3)
    with pytest.raises(UserError, match="input 'x' leaves dimension 1 open"):
        load_model(written(tmp_path / "open.onnx", nodes, ["N", "T"]))


def test_what_is_no_onnx_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"m\.onnx is no ONNX model"):
        load_model(tmp_path / "m.onnx")
