"""Reads an ONNX file: parameters, example inputs, and whether every operator is covered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pockc.errors import Problem, UserError
from pockc.frontend.onnx_model.module import OnnxModule
from pockc.frontend.onnx_model.table import OPERATORS

_FIX = "export the model again with plain operators, or write model.py"


def load_onnx(path: Path) -> tuple[OnnxModule, dict[str, Tensor]]:
    """Return the module of a file and one batch of example inputs, of one row if that is open.

    Raises:
        UserError: [no-onnx] the package onnx is missing; [model-file] the file is no ONNX
            model; [onnx-operator] for every operator that is not covered; [onnx-shape] an
            input's shape is open beyond the rows.
    """
    onnx = _package()
    try:
        model = onnx.load(str(path))
        model = onnx.version_converter.convert_version(model, 18) if _old(model) else model
    except Exception as error:
        what = f"{path.name} is no ONNX model that can be read: {error}"
        raise UserError(Problem("model-file", what, fix="check the file")) from error
    problems = tuple(_unknown(model))
    if problems:
        raise UserError(*problems)
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    inputs = {i.name: _example(onnx, i) for i in model.graph.input if i.name not in arrays}
    return OnnxModule(model.graph, arrays), inputs


def _package() -> Any:  # noqa: ANN401  the module
    try:
        import onnx
        import onnx.version_converter
    except ImportError as error:
        what = f"an ONNX model needs a package that is missing: {error.name}"
        raise UserError(Problem("no-onnx", what, fix="pip install 'pockc[onnx]'")) from error
    return onnx


def _old(model: Any) -> bool:  # noqa: ANN401
    """Return whether operators mean something else than in the versions of the table."""
    return any(o.domain in ("", "ai.onnx") and o.version < 13 for o in model.opset_import)


def _unknown(model: Any) -> Iterator[Problem]:  # noqa: ANN401
    counts: dict[str, int] = {}
    for node in model.graph.node:
        known = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
        if not known and node.op_type != "Constant":
            name = f"{node.domain}.{node.op_type}".lstrip(".")
            counts[name] = counts.get(name, 0) + 1
    for name, count in sorted(counts.items()):
        what = f"operator {name}, {count} times in the model, is not covered"
        yield Problem("onnx-operator", what, fix=_FIX)


def _example(onnx: Any, given: Any) -> Tensor:  # noqa: ANN401
    tensor = given.type.tensor_type
    shape = []
    for at, dim in enumerate(tensor.shape.dim):
        if dim.dim_value <= 0 and at > 0:
            name = dim.dim_param or "?"
            what = f"input '{given.name}' leaves dimension {at} open ({name})"
            fix = "export with fixed sizes; the number of rows alone may be open (--batch)"
            raise UserError(Problem("onnx-shape", what, fix=fix))
        shape.append(dim.dim_value if dim.dim_value > 0 else 1)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype.kind == "f":
        # Only shape and type matter; a graph of numbers that differ shows more mistakes.
        count = math.prod(shape)
        return (
            torch.linspace(-1, 1, count)
            .reshape(shape)
            .to(torch.from_numpy(np.zeros(0, dtype)).dtype)
        )
    return torch.from_numpy(np.zeros(shape, dtype))
