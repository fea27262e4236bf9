"""Artifacts for ONNX Runtime's training API, trained by it in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc import driver, runtime
from pockc.errors import UserError
from pockc.frontend.loading import UserModel
from pockc.ir import DType
from tests import nets
from tests.environments import environment
from tests.parity.reference import EagerTrainer, arrays
from tests.parity.test_parity import captured, parts_of, scheme_of
from tests.support import close
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_torch

# The API imports torch, though it does nothing with it here.
PACKAGES = ("onnxruntime-training-cpu==1.19.2", "numpy<2", "onnx<1.17", "torch==2.13.0")
PACKAGES += ("cerberus", "h5py", "packaging")


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of an environment with the training API, made if there is none."""
    if sys.version_info >= (3, 12):
        pytest.skip("onnxruntime-training 1.19.2 has no wheels beyond Python 3.11")
    return environment("ort-training", *PACKAGES)


def compiled(
    path: Path, net: str, scheme: dict[str, Any], overrides: dict[str, Any]
) -> EagerTrainer:
    """Compile a net, and return what trains it in PyTorch."""
    config = driver.read_config(scheme, overrides)
    traced = captured(net, 8)
    driver.build_captured(traced, config, path, driver.Options(backend="ort-training"))
    return EagerTrainer(nets.make(net), parts_of(config, traced), overrides["optimizer"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "scheme", "optimizer"),
    [
        ("mobilenet", "last", {"name": "sgd", "lr": 0.05}),
        ("bert", "full", {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4}),
        ("llama", "last", {"name": "adamw", "lr": 1e-3, "eps": 1e-4}),
    ],
)
def test_the_training_api_trains_as_pytorch_does(
    net: str, scheme: str, optimizer: dict[str, Any], python: Path, tmp_path: Path
) -> None:
    eager = compiled(tmp_path / "a.pock", net, scheme_of(net, scheme), {"optimizer": optimizer})
    batches = nets.batches(net, 8, 6)
    given = {f"{s}.{i}": a for s, b in enumerate(batches) for i, a in enumerate(arrays(b))}
    np.savez(tmp_path / "data.npz", **given)
    script = Path(__file__).with_name("ort_training_steps.py")
    out = tmp_path / "out.npz"
    command = [python, script, tmp_path / "a.pock", tmp_path / "data.npz"]
    done = subprocess.run(
        [*map(str, command), str(optimizer["lr"]), str(out)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(out)
    allowed = tolerance(DType.F32, "training")
    losses = [eager.step(*b) for b in batches]
    close(found["losses"], np.array(losses), allowed)
    trained = {n.removeprefix("param.") for n in found.files if n.startswith("param.")}
    # What is frozen is part of the models: the optimizer sees what is trained, and no more.
    assert trained == set(eager.trained)
    for name, value in eager.arrays().items():
        if name in trained:
            close(found[f"param.{name}"], value, allowed)
    assert found["eval_loss"].shape == ()
    assert found["logits"].shape[0] == 8


@pytest.mark.parametrize(
    ("overrides", "rules", "what"),
    [
        ({"optimizer": {"name": "lion"}}, {"preset": "full"}, "no optimizer 'lion'"),
        ({"optimizer": {"name": "sgd", "momentum": 0.9}}, {"preset": "full"}, "no momentum"),
        (
            {},
            {"update": [{"match": "*", "train": "all", "lr_scale": 2}]},
            "of a parameter's own",
        ),
        ({}, scheme_of("mlp", "channels"), "no channels to choose"),
    ],
)
def test_what_the_api_cannot_do_is_told(
    overrides: dict[str, Any], rules: dict[str, Any], what: str, tmp_path: Path
) -> None:
    config = driver.read_config(rules, {"optimizer": {"name": "sgd"}, **overrides})
    with pytest.raises(UserError) as caught:
        driver.build_captured(
            captured("mlp", 8),
            config,
            tmp_path / "a.pock",
            driver.Options(backend="ort-training"),
        )
    assert "[ort-training-optimizer] the optimizers of ONNX Runtime's training API" in str(
        caught.value
    )
    assert what in str(caught.value)
    assert not (tmp_path / "a.pock").exists()


def test_such_an_artifact_is_not_run_by_pockc(tmp_path: Path) -> None:
    user = UserModel(nets.make("mlp"), nets.batches("mlp", 8, 1)[0][:-1])
    config = driver.read_config({"preset": "full"}, {"optimizer": "sgd"})
    driver.build(user, config, tmp_path / "a.pock", driver.Options(backend="ort-training"))
    with pytest.raises(UserError, match="ort-training-artifact"):
        runtime.load(tmp_path / "a.pock")
