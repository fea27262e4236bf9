"""Compiles a case with pockc. Not part of any measured step."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from pockc import driver
from pockc.frontend.loading import UserModel
from tests.bench.cases import LEARNING_RATE, Case
from tests.bench.nets import make_net, trained_names
from tests.bench.values import initial_values, load_values, make_batch


def compile_case(
    case: Case,
    path: Path,
    threads: int,
    progress: driver.Progress = lambda *_: None,
    backend: str = "tvm",
) -> float:
    """Compile a case to the artifact folder `path`; return the seconds that it took."""
    net = make_net(case.spec)
    load_values(net, initial_values(net))
    inputs, _ = make_batch(case.spec)
    rules = [{"match": name, "train": "all"} for name in trained_names(net, case.mode)]
    optimizer = {"name": "sgd", "lr": LEARNING_RATE}
    config = driver.read_config({"update": rules}, {"optimizer": optimizer})
    model = UserModel(net, (torch.from_numpy(inputs),))
    began = time.perf_counter()
    options = driver.Options(backend=backend, threads=threads, progress=progress)
    driver.build(model, config, path, options)
    return time.perf_counter() - began
