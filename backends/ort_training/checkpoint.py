"""The checkpoint file of ONNX Runtime's training API: a flatbuffer of the parameters.

The schema is `ort_training_checkpoint.fbs` of ONNX Runtime, version 2; every release of
onnxruntime brings the classes that were generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pockc.backends.onnx.elements import ELEMENTS
from pockc.errors import Problem, UserError
from pockc.ir.types import DType

_IDENTIFIER = b"ODTC"
_VERSION = 2
_MOST_BYTES = 2**31 - 2**20
"""A flatbuffer's offsets have 32 bits, with a sign."""


def checkpoint(
    trained: Mapping[str, np.ndarray], frozen: Mapping[str, np.ndarray] | None = None
) -> bytes:
    """Return the content of a checkpoint in which no step was taken yet.

    Raises:
        UserError: [ort-training-size] There are more bytes than the format can hold;
            [no-onnxruntime] onnxruntime, which has the format's classes, is not installed.
    """
    frozen = frozen or {}
    nbytes = sum(a.nbytes for a in (*trained.values(), *frozen.values()))
    if nbytes > _MOST_BYTES:
        what = f"{nbytes} bytes of parameters do not fit into a checkpoint of ONNX Runtime"
        fix = "train fewer parameters, or use --backend onnx"
        raise UserError(Problem("ort-training-size", what, fix=fix))
    flatbuffers, classes = _classes()
    builder = flatbuffers.Builder(nbytes + 4096)
    module = classes["ModuleState"]
    lists = {}
    for name, arrays in (("RequiresGradParams", trained), ("FrozenParams", frozen)):
        tensors = [_tensor(builder, classes["Tensor"], n, a) for n, a in arrays.items()]
        getattr(module, f"ModuleStateStart{name}Vector")(builder, len(tensors))
        for tensor in reversed(tensors):
            builder.PrependUOffsetTRelative(tensor)
        lists[name] = builder.EndVector()
    module.ModuleStateStart(builder)
    for name, made in lists.items():
        getattr(module, f"ModuleStateAdd{name}")(builder, made)
    state = module.ModuleStateEnd(builder)
    top = classes["Checkpoint"]
    top.CheckpointStart(builder)
    top.CheckpointAddVersion(builder, _VERSION)
    top.CheckpointAddModuleState(builder, state)
    builder.Finish(top.CheckpointEnd(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Any, made: Any, name: str, array: np.ndarray) -> int:  # noqa: ANN401
    dtype = DType.of(array.dtype)
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    data, text = builder.CreateNumpyVector(raw), builder.CreateString(name)
    made.TensorStartDimsVector(builder, array.ndim)
    for n in reversed(array.shape):
        builder.PrependInt64(n)
    dims = builder.EndVector()
    made.TensorStart(builder)
    made.TensorAddName(builder, text)
    made.TensorAddDims(builder, dims)
    made.TensorAddDataType(builder, ELEMENTS[dtype])
    made.TensorAddRawData(builder, data)
    return int(made.TensorEnd(builder))


def _classes() -> tuple[Any, dict[str, Any]]:
    """Return the package flatbuffers and the classes of the format."""
    try:
        import flatbuffers
        from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs import (
            Checkpoint,
            ModuleState,
            Tensor,
        )
    except ImportError as error:
        what = f"a checkpoint of ONNX Runtime needs a package that is missing: {error.name}"
        fix = "pip install 'pockc[onnx]'"
        raise UserError(Problem("no-onnxruntime", what, fix=fix)) from error
    names = {"Checkpoint": Checkpoint, "ModuleState": ModuleState, "Tensor": Tensor}
    return flatbuffers, names
