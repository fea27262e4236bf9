"""Element types: their number in the C library, their NumPy type, their name in safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ElementType:
    """One element type.

    Attributes:
        name: As in graph text, `f32`.
        numpy: The type of the raw elements; bf16 has none and is kept as 16 bits.
        stored: Its name in a safetensors file.
    """

    name: str
    numpy: np.dtype[Any]
    stored: str

    @property
    def nbytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @property
    def kind(self) -> str:
        """`f` for floating point, `i` for integers, `b` for truth values."""
        return {"f": "f", "b": "b"}.get(self.name[0], "i")


# In the order of `pk_dtype`.
ELEMENT_TYPES = (
    ElementType("f64", np.dtype(np.float64), "F64"),
    ElementType("f32", np.dtype(np.float32), "F32"),
    ElementType("f16", np.dtype(np.float16), "F16"),
    ElementType("bf16", np.dtype(np.uint16), "BF16"),
    ElementType("i64", np.dtype(np.int64), "I64"),
    ElementType("i32", np.dtype(np.int32), "I32"),
    ElementType("i16", np.dtype(np.int16), "I16"),
    ElementType("i8", np.dtype(np.int8), "I8"),
    ElementType("u8", np.dtype(np.uint8), "U8"),
    ElementType("b1", np.dtype(np.bool_), "BOOL"),
)
BY_NAME = {t.name: t for t in ELEMENT_TYPES}
BY_STORED = {t.stored: t for t in ELEMENT_TYPES}


def raw_from(array: Array, element: ElementType) -> Array:
    """Return the raw elements of a tensor; float32 becomes bf16 by rounding to nearest even."""
    if element.name != "bf16":
        return np.ascontiguousarray(array, dtype=element.numpy)
    if array.dtype == np.uint16:
        return np.ascontiguousarray(array)
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding must not turn a NaN into an infinity.
    return np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)


def array_from(raw: Array, element: ElementType) -> Array:
    """Return raw elements as numbers; bf16 becomes float32, exactly."""
    if element.name != "bf16":
        return raw
    return (raw.astype(np.uint32) << 16).view(np.float32)
