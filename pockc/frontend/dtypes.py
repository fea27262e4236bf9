"""Element types of torch in our terms."""

from __future__ import annotations

import numpy as np
import torch

from pockc.ir import DType, TensorType

_OURS = {
    torch.float64: DType.F64,
    torch.float32: DType.F32,
    torch.float16: DType.F16,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.int32: DType.I32,
    torch.int16: DType.I16,
    torch.int8: DType.I8,
    torch.uint8: DType.U8,
    torch.bool: DType.B1,
}
_TORCHS = {ours: torchs for torchs, ours in _OURS.items()}


def dtype_of(dtype: torch.dtype) -> DType | None:
    """Return our element type, None if there is none (complex numbers, for example)."""
    return _OURS.get(dtype)


def torch_dtype(dtype: DType) -> torch.dtype:
    """Return torch's element type."""
    return _TORCHS[dtype]


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """Return shape and element type of a tensor.

    Raises:
        ValueError: We have no such element type.
    """
    dtype = dtype_of(tensor.dtype)
    if dtype is None:
        known = ", ".join(d.value for d in _TORCHS)
        raise ValueError(f"element type {tensor.dtype} is not supported; choose from: {known}")
    return TensorType(tuple(tensor.shape), dtype)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's content, bfloat16 widened to float32, as a copy of its own."""
    kept = tensor.detach().cpu()
    if kept.dtype is torch.bfloat16:
        kept = kept.float()
    return np.array(kept.numpy(), order="C")
