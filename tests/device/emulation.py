"""Runs an artifact's own `pock-run`, here or under an emulator of another processor."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pockc import driver
from pockc.backends.native import COMMAND
from pockc.frontend.captured import Captured
from pockc.frontend.loading import UserModel
from pockc.scheme import Config
from tests.device.models import MODELS, DeviceModel
from tests.programs import need_program

LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian has the C library of other machines


@dataclass(frozen=True)
class Run:
    """What three steps gave.

    Attributes:
        losses: Of each step.
        state: The model's tensors after them.
    """

    losses: np.ndarray
    state: Mapping[str, np.ndarray]


@lru_cache
def captured(name: str) -> tuple[DeviceModel, Captured, Config]:
    """Return a model, traced once for all targets."""
    made = MODELS[name]()
    config = driver.read_config(made.sparse_update, {})
    inputs, target = made.first
    own = None if isinstance(made.loss, str) else target
    user = UserModel(made.model, inputs, made.loss, own)
    return made, driver.capture_model(user, config, driver.Options()), config


def compile_for(target: str, name: str, folder: Path, *, static: bool = False) -> Path:
    """Write the artifact of a model for a target, with its three batches beside it."""
    made, graphs, config = captured(name)
    path = folder / f"{name}-{target}.pock"
    driver.build_captured(
        graphs, config, path, driver.Options(target, threads=1, static=static)
    )
    arrays = {n: b.numpy() for n, b in made.batches.items()}
    save_file(arrays, folder / f"{name}.safetensors")
    return path


def emulator(cpu: str, *, static: bool) -> list[str]:
    """Return the words before a program of 64-bit Arm; skip the test without an emulator."""
    words = [need_program("qemu-aarch64-static"), "-cpu", cpu]
    if static:
        return words
    need_program("ld-linux-aarch64.so.1")
    return [*words, "-L", LIBRARIES]


def train(artifact: Path, before: Sequence[str] = ()) -> Run:
    """Take three steps with one thread; the artifact stays as it is."""
    data = artifact.parent / f"{artifact.stem.partition('-')[0]}.safetensors"
    result = artifact.with_suffix(".safetensors")
    command = [*before, str(artifact / COMMAND), "train", str(artifact), "--data", str(data)]
    options = ["--no-shuffle", "--threads", "1", "--log-json", "--save", str(result)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    losses = np.array([e["loss"] for e in events if e["event"] == "step"], np.float32)
    return Run(losses, load_file(result))
