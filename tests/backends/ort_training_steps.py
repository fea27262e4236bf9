"""Trains an artifact with ONNX Runtime's training API; runs in an environment that has it.

Takes the artifact, an .npz of batches (`<step>.<input>`) and the learning rate; writes losses,
parameters and predictions as .npz. Imports nothing of pockc.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def main(folder: Path, data: Path, lr: float, out: Path) -> None:
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state, str(folder / "eval_model.onnx"))
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(lr)
    stored = np.load(data)
    steps = 1 + max(int(n.partition(".")[0]) for n in stored.files)
    module.train()
    losses = []
    batch: list[np.ndarray] = []
    for step in range(steps):
        names = sorted(n for n in stored.files if n.startswith(f"{step}."))
        batch = [stored[n] for n in names]
        losses.append(float(module(*batch)))
        optimizer.step()
        module.lazy_reset_grad()
    module.eval()
    loss, logits = module(*batch)
    parameters = {f"param.{name}": p.data for name, p in state.parameters}
    np.savez(out, losses=losses, eval_loss=loss, logits=logits, **parameters)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
