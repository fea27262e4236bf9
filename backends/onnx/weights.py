"""The constants of an artifact's models: small ones inside, large ones in one file for all.

The file is safetensors; to ONNX it is external data, a range of bytes in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from pockc.backends.onnx.elements import ELEMENTS
from pockc.ir.types import DType
from pockc.runtime.dtypes import BY_NAME, Array, raw_from
from pockc.runtime.safetensors import NewTensor, array_chunks, read_header, write

FILE = "constants.safetensors"
INLINE_BYTES = 1024
"""Constants up to this size stay in the model."""


@dataclass(frozen=True)
class Weight:
    """A constant: raw elements and their type."""

    raw: Array
    dtype: DType

    @classmethod
    def of(cls, array: np.ndarray, dtype: DType | None = None) -> Weight:
        """Return the constant of an array; a bf16 tensor comes as float32."""
        dtype = dtype or DType.of(array.dtype)
        raw = raw_from(array, BY_NAME[dtype.value])
        return cls(raw.reshape(array.shape), dtype)

    @property
    def key(self) -> str:
        """Equal constants have equal keys."""
        digest = hashlib.sha256(self.raw.data.cast("B") if self.raw.size else b"").hexdigest()
        return f"{self.dtype.value}.{'x'.join(map(str, self.raw.shape))}.{digest[:32]}"


def write_weights(path: Path, models: Iterable[Mapping[str, Weight]]) -> dict[str, int]:
    """Write the large constants of all models; return where each begins, by its key."""
    found: dict[str, tuple[str, Weight]] = {}
    taken: set[str] = set()
    for weights in models:
        for name, weight in weights.items():
            if weight.raw.nbytes <= INLINE_BYTES or weight.key in found:
                continue
            found[weight.key] = (name if name not in taken else weight.key), weight
            taken.add(found[weight.key][0])
    tensors = [
        NewTensor(n, BY_NAME[w.dtype.value], w.raw.shape, array_chunks(w.raw))
        for n, w in sorted(found.values(), key=lambda nw: nw[0])
    ]
    with path.open("wb") as file:
        write(file, tensors, {})
    stored = read_header(path).tensors
    return {key: stored[name].begin for key, (name, _) in found.items()}


def initializer(name: str, weight: Weight, places: Mapping[str, int]) -> onnx.TensorProto:
    """Return a constant as a model holds it."""
    tensor = TensorProto(name=name, data_type=ELEMENTS[weight.dtype], dims=weight.raw.shape)
    if weight.raw.nbytes <= INLINE_BYTES:
        tensor.raw_data = weight.raw.tobytes()
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    facts = {"location": FILE, "offset": places[weight.key], "length": weight.raw.nbytes}
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def inlined(weights: Mapping[str, Weight]) -> list[onnx.TensorProto]:
    """Return constants as a model holds them that has no other file."""
    return [
        TensorProto(
            name=name,
            data_type=ELEMENTS[weight.dtype],
            dims=weight.raw.shape,
            raw_data=weight.raw.tobytes(),
        )
        for name, weight in weights.items()
    ]
