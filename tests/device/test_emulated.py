"""Artifacts for boards, run under an emulator of their processors, against this machine."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from pockc.backends.native import COMMAND
from pockc.ir import DType
from tests.device.emulation import Run, captured, compile_for, emulator, train
from tests.device.models import STEPS, WHOLE_RATE
from tests.programs import need_program
from tests.support import close
from tests.tolerances import tolerance

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.needs_tvm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # seconds on an idle machine, many minutes on a busy one
]


def same_run(actual: Run, expected: Run) -> None:
    """Assert that two runs agree by the tolerance table."""
    allowed = tolerance(DType.F32, "training")
    assert len(expected.losses) == STEPS
    close(actual.losses, expected.losses, allowed)
    assert actual.state.keys() == expected.state.keys()
    for name, value in expected.state.items():
        same_tensor(name, actual.state[name], value)


def same_tensor(name: str, actual: np.ndarray, expected: np.ndarray) -> None:
    """Assert that a tensor of two runs agrees; its name is in the message."""
    try:
        close(actual, expected, tolerance(DType.F32, "training"))
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("name", ["minilm", "mobilenet", "decoder"])
def test_boards_train_as_this_machine_does(name: str, tmp_path: Path) -> None:
    a72, a53 = emulator("cortex-a72", static=False), emulator("cortex-a53", static=True)
    host = train(compile_for("host", name, tmp_path))
    # The weights move: a run that did nothing would agree as well.
    assert np.ptp(host.losses) > 1e-3 * abs(host.losses[0])
    same_run(train(compile_for("rpi4", name, tmp_path), a72), host)
    same_run(train(compile_for("rpi3", name, tmp_path, static=True), a53), host)


def test_a_board_finds_the_gradients_of_a_whole_net(tmp_path: Path) -> None:
    a72 = emulator("cortex-a72", static=False)
    made, _, _ = captured("mobilenet_whole")
    net = copy.deepcopy(made.model).double()
    (images,), target = made.first
    loss = nn.functional.cross_entropy(net(images.double()), target)
    loss.backward()
    run = train(compile_for("rpi4", "mobilenet_whole", tmp_path), a72)
    close(run.losses, np.array([loss.item()], np.float32), tolerance(DType.F32, "training"))
    for name, parameter in made.model.named_parameters():
        exact = net.get_parameter(name).grad
        assert exact is not None
        before = parameter.detach().numpy()
        found = (before - run.state[name]) / WHOLE_RATE
        # What a gradient of this size loses in the difference of two weights.
        lost = np.spacing(np.abs(before).max()) / WHOLE_RATE
        error = np.abs(found - exact.numpy()).max()
        assert error <= 1e-3 * np.abs(exact.numpy()).max() + lost, name


def test_a_32_bit_board_trains_as_this_machine_does(tmp_path: Path) -> None:
    emulated = [need_program("qemu-arm-static"), "-cpu", "cortex-a7"]
    host = train(compile_for("host", "minilm", tmp_path))
    same_run(train(compile_for("armv7", "minilm", tmp_path, static=True), emulated), host)


def test_a_static_program_refuses_another_model(tmp_path: Path) -> None:
    one = compile_for("host", "decoder", tmp_path, static=True)
    other = compile_for("x86-64-v3", "decoder", tmp_path)
    done = subprocess.run(
        [one / COMMAND, "info", other], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"[foreign-program] this program has the code of another model than {other}\n"
        "    fix  use the pock-run in the artifact's own folder"
    )


@pytest.mark.parametrize("damage", [2.0, -1.0, 0.0, np.nan])
def test_the_comparison_of_runs_can_fail(damage: float) -> None:
    losses, state = np.array([3.0, 2.0, 1.0], np.float32), {"w": np.ones(4, np.float32)}
    run = Run(losses, state)
    same_run(run, run)
    with pytest.raises(AssertionError):
        same_run(Run(losses * np.float32(damage), state), run)
    with pytest.raises(AssertionError, match="w: "):
        same_run(Run(losses, {"w": state["w"] * np.float32(damage)}), run)
