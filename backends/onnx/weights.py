"""The constants of an artifact's models: small ones inside, large ones in one file for all.

It is the artifact's file of frozen tensors; to ONNX that is external data, a range of bytes in
a file. A frozen tensor that a model reads as it is lies there once, under its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from pockc.backends.onnx.elements import DTYPES, ELEMENTS
from pockc.ir.types import DType
from pockc.runtime.dtypes import BY_NAME, Array, raw_from
from pockc.runtime.frozen import ALIGN_BYTES, CONSTANT, FrozenTensor, write_frozen
from pockc.runtime.manifest import FROZEN_FILE
from pockc.runtime.safetensors import NewTensor, array_chunks, read_header

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

    @classmethod
    def stored(cls, tensor: onnx.TensorProto, folder: Path) -> Weight:
        """Return a constant of a model in a folder; external data is a view of its file."""
        dtype = DTYPES[tensor.data_type]
        element = BY_NAME[dtype.value].numpy
        facts = {e.key: e.value for e in tensor.external_data}
        if facts:
            path, begin = folder / facts["location"], int(facts["offset"])
            raw = np.memmap(path, element, "r", begin, tuple(tensor.dims))
        else:
            raw = np.frombuffer(tensor.raw_data, element).reshape(tensor.dims)
        return cls(raw, dtype)

    @cached_property
    def key(self) -> str:
        """Equal constants have equal keys."""
        digest = hashlib.sha256(self.raw.data.cast("B") if self.raw.size else b"").hexdigest()
        return f"{self.dtype.value}.{'x'.join(map(str, self.raw.shape))}.{digest[:32]}"


def write_weights(
    path: Path, models: Iterable[Mapping[str, Weight]], own: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Write the file of frozen tensors; return where each large constant begins, by its key.

    Args:
        path: The file.
        models: The constants of each model, by name.
        own: The tensors of the user's model that no entry changes, whether one reads them or
            not.
    """
    found = {n: Weight.of(v) for n, v in own.items()}
    small = {n: w for n, w in found.items() if w.raw.nbytes <= INLINE_BYTES}
    large = {n: w for n, w in sorted(found.items()) if n not in small}
    name_of: dict[str, str] = {}
    for name, weight in large.items():
        name_of.setdefault(weight.key, name)
    for weights in models:
        for name, weight in weights.items():
            if weight.raw.nbytes > INLINE_BYTES and weight.key not in name_of:
                free = CONSTANT + (name if CONSTANT + name not in large else weight.key)
                large[free], name_of[weight.key] = weight, free
    begins = write_tensors(path, large, small)
    return {key: begins[name] for key, name in name_of.items()}


def write_tensors(
    path: Path, large: Mapping[str, Weight], small: Mapping[str, Weight] | None = None
) -> dict[str, int]:
    """Write a file of tensors, large ones where vectors may begin; return where each begins."""
    rest = (FrozenTensor(_new(*s)) for s in (small or {}).items())
    with path.open("wb") as file:
        write_frozen(file, (*_placed(large), *rest))
    return {name: stored.begin for name, stored in read_header(path).tensors.items()}


def _placed(weights: Mapping[str, Weight]) -> Iterator[FrozenTensor]:
    """Yield the tensors one behind the other, each where a vector may begin."""
    offset = 0
    for name, weight in sorted(weights.items()):
        yield FrozenTensor(_new(name, weight), offset)
        offset += -(-weight.raw.nbytes // ALIGN_BYTES) * ALIGN_BYTES


def _new(name: str, weight: Weight) -> NewTensor:
    element = BY_NAME[weight.dtype.value]
    return NewTensor(name, element, weight.raw.shape, array_chunks(weight.raw))


def initializer(
    name: str, weight: Weight, places: Mapping[str, int], file: str = FROZEN_FILE
) -> onnx.TensorProto:
    """Return a constant as a model holds it.

    Args:
        name: Its name in the model.
        weight: The constant.
        places: Where constants begin in the file, by key; the others are part of the model.
        file: The file, beside the model.
    """
    tensor = TensorProto(name=name, data_type=ELEMENTS[weight.dtype], dims=weight.raw.shape)
    if not places or weight.key not in places:
        tensor.raw_data = weight.raw.tobytes()
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    facts = {"location": file, "offset": places[weight.key], "length": weight.raw.nbytes}
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def initializers(
    weights: Mapping[str, Weight], places: Mapping[str, int], file: str = FROZEN_FILE
) -> list[onnx.TensorProto]:
    """Return constants as a model holds them, all of them inside if there are no places."""
    return [initializer(name, weight, places, file) for name, weight in weights.items()]
