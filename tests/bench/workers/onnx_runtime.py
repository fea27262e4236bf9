"""ONNX Runtime's on-device training, from graphs that `onnx_model` has written."""

from __future__ import annotations

from tests.bench.workers.meter import Meter
from tests.bench.workers.onnx_model import FOLDER, leave_out_torch


def main() -> None:
    """Load the training graphs and serve their step."""
    meter = Meter()
    leave_out_torch()
    import onnxruntime
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    meter.imported()
    folder = meter.folder / FOLDER
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = meter.threads
    options.log_severity_level = 3
    state = CheckpointState.load_checkpoint(folder / "checkpoint")
    module = Module(
        folder / "training_model.onnx",
        state,
        folder / "eval_model.onnx",
        session_options=options,
    )
    optimizer = Optimizer(folder / "optimizer_model.onnx", module)
    optimizer.set_learning_rate(meter.learning_rate)
    inputs, labels = meter.batch()
    module.train()

    def step() -> float:
        loss = module(inputs, labels)
        optimizer.step()
        module.lazy_reset_grad()
        return float(loss)

    meter.serve(step, onnxruntime.__version__)


if __name__ == "__main__":
    main()
