"""The whole training step as ONNX models of standard operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pockc.backends.base import Job
from pockc.errors import Problem, UserError
from pockc.ir.graph import Graph
from pockc.passes.pipeline import Form
from pockc.plan.product import Product


@dataclass(frozen=True, slots=True)
class OnnxBackend:
    """The backend `onnx`. The package onnx itself is imported when a model is wanted."""

    name: str = "onnx"

    @property
    def native(self) -> frozenset[str]:
        """The ops it has a lowering for."""
        return lowered_ops(self.name)

    @property
    def form(self) -> Form:
        """Whole operators: ONNX Runtime decides on order, layouts and memory."""
        return Form.OPERATORS

    def check(self, target: str, opset: int | None) -> None:
        """Check that onnx is there and can write the opset."""
        need_onnx(self.name)
        from pockc.backends.onnx import opsets

        check_target(self.name, target)
        opsets.choose(opset)

    def emit(self, graphs: Mapping[str, Graph], job: Job) -> Product:
        """Return the models of an artifact."""
        from pockc.backends.onnx.emit import emit

        return emit(graphs, job)


def lowered_ops(backend: str) -> frozenset[str]:
    """Return the ops that have a lowering to ONNX, for a backend that writes it."""
    need_onnx(backend)
    from pockc.backends.onnx.lowerings import LOWERINGS

    return LOWERINGS.names


def need_onnx(backend: str) -> None:
    """Check that the package onnx can be imported.

    Raises:
        UserError: [no-onnx] It cannot.
    """
    try:
        import onnx  # noqa: F401  not needed on a device
    except ImportError as error:
        what = f"the backend '{backend}' needs a package that is missing: {error.name}"
        raise UserError(Problem("no-onnx", what, fix="pip install 'pockc[onnx]'")) from error


def check_target(backend: str, target: str) -> None:
    """Check that no machine was asked for: a model is for all of them.

    Raises:
        UserError: [unknown-target] One was.
    """
    if target != "host":
        what = f"the backend '{backend}' makes no code for a target, and got '{target}'"
        fix = "leave --target out: ONNX models run on every machine that has an ONNX Runtime"
        raise UserError(Problem("unknown-target", what, fix=fix))


BACKEND = OnnxBackend()
