"""Ten compiled steps are ten steps of PyTorch: nets x optimizers x schemes x batch sizes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc import driver, runtime
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.ir import DType
from pockc.scheme import Config, resolve
from tests import nets
from tests.parity.reference import EagerTrainer, Part, arrays
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [pytest.mark.slow, pytest.mark.needs_torch, pytest.mark.needs_tvm]

STEPS = 10
BACKENDS = ("tvm", "onnx")

# Where an optimizer divides by the size of gradients, a larger eps than usual: an element whose
# gradient is rounding noise would otherwise move as far as any other.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.05},
    "momentum": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "lr": 1e-3, "eps": 1e-4},
    "adamw": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4},
    "rmsprop": {"name": "rmsprop", "lr": 1e-3, "eps": 1e-3, "momentum": 0.5},
    "adagrad": {"name": "adagrad", "lr": 1e-2, "eps": 1e-3},
    "lion": {"name": "lion", "lr": 1e-4, "weight_decay": 0.1},
    "adafactor": {"name": "adafactor", "lr": 1e-3, "eps": (1e-4, 1e-3)},
}
SCHEMES = ("full", "bias", "last", "channels")


def scheme_of(net: str, scheme: str) -> dict[str, Any]:
    """Return the part of a configuration that says what is trained."""
    match scheme:
        case "full":
            return {"preset": "full"}
        case "bias" if net == "llama":  # it has none: norms are the next smallest thing
            return {"update": [{"match": "*norm*", "train": "all"}]}
        case "bias":
            return {"update": [{"match": "*", "train": "bias"}]}
        case "last":
            return {"update": [{"match": m, "train": "all"} for m in nets.NETS[net].last]}
        case _:
            return {"update": list(nets.NETS[net].channels)}


@functools.cache
def captured(net: str, rows: int) -> Captured:
    """Return a net traced once for all of its tests."""
    user = UserModel(nets.make(net), nets.batches(net, rows, 1)[0][:-1])
    return driver.capture_model(user, Config(), driver.Options())


def parts_of(config: Config, traced: Captured) -> dict[str, Part | None]:
    scheme = resolve(config, traced.parameters, traced.values, traced.modules, traced.aliases)
    return {name: how.selection for name, how in scheme.trained.items()}


def cases() -> Iterator[Any]:
    for net in nets.NETS:
        for optimizer in OPTIMIZERS:
            for scheme in SCHEMES:
                for rows in (1, 8):
                    yield pytest.param(net, optimizer, scheme, rows)


def compiled(
    net: str, rows: int, config: Config, folder: Path, backend: str = "tvm"
) -> runtime.Artifact:
    path = folder / "net.pock"
    options = driver.Options(threads=2, backend=backend)
    driver.build_captured(captured(net, rows), config, path, options)
    return runtime.load(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("net", "optimizer", "scheme", "rows"), list(cases()))
def test_ten_steps_are_those_of_pytorch(
    net: str, optimizer: str, scheme: str, rows: int, backend: str, tmp_path: Path
) -> None:
    config = driver.read_config(scheme_of(net, scheme), {"optimizer": OPTIMIZERS[optimizer]})
    parts = parts_of(config, captured(net, rows))
    assert parts
    eager = EagerTrainer(nets.make(net), parts, OPTIMIZERS[optimizer])
    before = eager.arrays()
    allowed = tolerance(DType.F32, "training")
    with compiled(net, rows, config, tmp_path, backend) as artifact:
        for batch in nets.batches(net, rows, STEPS):
            loss, expected = artifact.train_step(*arrays(batch)), eager.step(*batch)
            close(np.float32(loss), np.float32(expected), allowed)
        state = artifact.state_dict()
    after = eager.arrays()
    for name, expected_value in after.items():
        close(state[name], expected_value, allowed)
        moved, expected_move = state[name] - before[name], expected_value - before[name]
        # The values move little; that they move right is seen in the moves.
        error = np.linalg.norm(moved - expected_move)
        assert error <= MOVES.get(optimizer, 5e-3) * np.linalg.norm(expected_move), name
        untouched = np.ones(moved.shape, bool)
        if name in parts:
            untouched[selected(parts[name])] = False
        np.testing.assert_array_equal(state[name][untouched], before[name][untouched])


# The sign of a gradient that is nearly zero is anybody's guess.
MOVES = {"lion": 5e-2}


def selected(part: Part | None) -> tuple[Any, ...]:
    """Return the index of what is trained of a tensor."""
    if part is None:
        return ()
    axis, indices = part
    return (*[slice(None)] * axis, list(indices))


def test_a_step_that_was_not_taken_is_noticed(tmp_path: Path) -> None:
    config = driver.read_config(scheme_of("mlp", "full"), {"optimizer": OPTIMIZERS["sgd"]})
    eager = EagerTrainer(
        nets.make("mlp"), parts_of(config, captured("mlp", 8)), OPTIMIZERS["sgd"]
    )
    (batch,) = nets.batches("mlp", 8, 1)
    allowed = tolerance(DType.F32, "training")
    with compiled("mlp", 8, config, tmp_path) as artifact:
        artifact.train_step(*arrays(batch))
        for _ in range(3):
            eager.step(*batch)
        found, expected = artifact.train_step(*arrays(batch)), eager.step(*batch)
    with pytest.raises(AssertionError):
        close(np.float32(found), np.float32(expected), allowed)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", ["mlp", "bert"])
def test_clipping_and_accumulation_are_those_of_pytorch(
    net: str, backend: str, tmp_path: Path
) -> None:
    chosen = OPTIMIZERS["adamw"]
    overrides = {"optimizer": chosen, "clip_norm": 0.1, "accumulate": 4}
    config = driver.read_config(scheme_of(net, "last"), overrides)
    user = UserModel(nets.make(net), nets.batches(net, 8, 1)[0][:-1])
    split = driver.capture_model(user, config, driver.Options())
    eager = EagerTrainer(nets.make(net), parts_of(config, split), chosen, clip_norm=0.1)
    path = tmp_path / "net.pock"
    driver.build_captured(split, config, path, driver.Options(threads=2, backend=backend))
    allowed = tolerance(DType.F32, "training")
    with runtime.load(path) as artifact:
        for batch in nets.batches(net, 8, STEPS):
            loss, expected = artifact.train_step(*arrays(batch)), eager.step(*batch)
            close(np.float32(loss), np.float32(expected), allowed)
        state = artifact.state_dict()
    for name, value in eager.arrays().items():
        close(state[name], value, allowed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluate_and_predict_see_the_weights_that_training_left(
    backend: str, tmp_path: Path
) -> None:
    config = driver.read_config(scheme_of("resnet", "full"), {"optimizer": OPTIMIZERS["sgd"]})
    with compiled("resnet", 8, config, tmp_path, backend) as artifact:
        batch, other = nets.batches("resnet", 8, 2)
        before = artifact.predict(*arrays(other[:-1]))
        for _ in range(5):
            artifact.train_step(*arrays(batch))
        model = nets.make("resnet").eval()
        state = {k: torch_tensor(v) for k, v in artifact.state_dict().items()}
        model.load_state_dict(state, strict=True)
        expected = model(other[0]).detach().numpy()
        allowed = tolerance(DType.F32, "training")
        close(artifact.predict(*arrays(other[:-1])), expected, allowed)
        assert not np.allclose(before, expected)
        # 11 rows: the last batch is a part of one.
        rows = [
            np.concatenate([a, b[:3]])
            for a, b in zip(arrays(batch), arrays(other), strict=True)
        ]
        measured = artifact.evaluate(tuple(rows))
        logits = model(torch_tensor(rows[0])).detach().numpy()
        shifted = logits - logits.max(1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(11), rows[1]]
        assert measured["loss"] == pytest.approx(losses.mean(), rel=1e-4)
        assert measured["accuracy"] == pytest.approx((logits.argmax(1) == rows[1]).mean())
        assert measured["samples"] == 11


def torch_tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
