"""Artifacts for ONNX Runtime's on-device training, whose last release is 1.19.2.

Training, evaluation and optimizer models and a checkpoint, as `onnxruntime.training.api` and
its C, C++, C# and mobile bindings load them: for who has that in place already. New work is
better served by the backend `onnx`, which any release runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pockc.backends.base import Job
from pockc.backends.onnx import check_target, lowered_ops, need_onnx
from pockc.errors import Problem, UserError
from pockc.ir.graph import Graph
from pockc.passes.pipeline import Form
from pockc.plan.product import Product

OPSETS = range(18, 22)
"""What ONNX Runtime 1.19 reads of the opsets that are written here."""


@dataclass(frozen=True, slots=True)
class OrtTrainingBackend:
    """The backend `ort-training`."""

    name: str = "ort-training"

    @property
    def native(self) -> frozenset[str]:
        """The ops it has a lowering for: those of the backend `onnx`."""
        return lowered_ops(self.name)

    @property
    def form(self) -> Form:
        """Gradients: its runtime keeps the optimizer's state and makes the updates."""
        return Form.GRADIENTS

    def check(self, target: str, opset: int | None) -> None:
        """Check that onnx is there and the opset is one of those that the runtime reads."""
        need_onnx(self.name)
        check_target(self.name, target)
        if opset is not None and opset not in OPSETS:
            what = f"ONNX Runtime 1.19 does not read opset {opset}"
            fix = f"choose one from {OPSETS[0]} to {OPSETS[-1]}"
            raise UserError(Problem("opset", what, fix=fix))

    def emit(self, graphs: Mapping[str, Graph], job: Job) -> Product:
        """Return the models of an artifact and its checkpoint."""
        from pockc.backends.ort_training.emit import emit

        return emit(graphs, job)


BACKEND = OrtTrainingBackend()
