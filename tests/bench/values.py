"""The weights and the batch of a case, equal for whoever trains it, and where they lie."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.bench.cases import LEARNING_RATE, Case, Workload
from tests.bench.nets import Net, make_net, trained_names

Array = np.ndarray[Any, Any]

CASE_FILE, WEIGHTS_FILE, BATCH_FILE = "case.json", "weights.npz", "batch.npz"


def initial_values(net: Net, seed: int = 0) -> dict[str, Array]:
    """Return every tensor of a net's state dict, drawn so that losses are finite."""
    rng = np.random.default_rng(seed)
    values = {n: t.detach().numpy() for n, t in net.state_dict().items()}
    spread = {name: _deviation(net, name) for name, _ in net.named_parameters()}
    for name, deviation in spread.items():
        shape = values[name].shape
        if deviation is not None:
            values[name] = rng.standard_normal(shape, np.float32) * np.float32(deviation)
    return {n: v for n, v in values.items() if not n.endswith("num_batches_tracked")}


def _deviation(net: Net, name: str) -> float | None:
    """Return the standard deviation of a drawn parameter, None for one that stays as made."""
    owner = net.get_submodule(name.rpartition(".")[0])
    match owner:
        case nn.Conv2d():
            return float((2.0 / owner.weight[0].numel()) ** 0.5)
        case nn.Linear():
            return float(owner.in_features**-0.5) if name.endswith("weight") else 0.0
        case nn.Embedding() | Net():
            return 0.02
        case _:
            return None


def make_batch(workload: Workload, seed: int = 1) -> tuple[Array, Array]:
    """Return inputs and labels: images (N, 3, H, W) or tokens (N, T); labels (N,) or (N, T)."""
    rng = np.random.default_rng(seed)
    shape, sizes = workload.input_shape, workload.sizes
    if workload.takes_images:
        images = rng.standard_normal(shape, np.float32)
        return images, rng.integers(0, sizes["classes"], shape[:1])
    tokens = rng.integers(0, sizes["vocabulary"], shape)
    if "classes" in sizes:
        return tokens, rng.integers(0, sizes["classes"], shape[:1])
    return tokens, rng.integers(0, sizes["vocabulary"], shape)


def load_values(net: Net, values: dict[str, Array]) -> None:
    """Put values into a net without copying them."""
    state: dict[str, Tensor] = {n: torch.from_numpy(v) for n, v in values.items()}
    missing, unknown = net.load_state_dict(state, strict=False, assign=True)
    if unknown or any(not n.endswith("num_batches_tracked") for n in missing):
        raise ValueError(f"values do not fit: {missing} missing, {unknown} unknown")


def write_case(case: Case, folder: Path) -> list[str]:
    """Write what every process reads; return the names of the trained parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    net = make_net(case.spec)
    trained = trained_names(net, case.mode)
    described = {
        "workload": asdict(case.spec),
        "mode": case.mode,
        "trained": trained,
        "learning_rate": LEARNING_RATE,
    }
    (folder / CASE_FILE).write_text(json.dumps(described), encoding="utf-8")
    np.savez(folder / WEIGHTS_FILE, allow_pickle=False, **initial_values(net))
    inputs, labels = make_batch(case.spec)
    np.savez(folder / BATCH_FILE, inputs=inputs, labels=labels)
    return trained
