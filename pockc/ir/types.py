"""Tensor types: static shape, element type and physical layout."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy


class DType(enum.Enum):
    """Element types; the value is the spelling in graph text."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U8 = "u8"
    B1 = "b1"

    @property
    def np(self) -> numpy.dtype[Any]:
        """The NumPy dtype. bf16 has none in NumPy and is computed there as float32."""
        return _NUMPY[self]

    @property
    def nbytes(self) -> int:
        """Bytes of one element in memory; a b1 takes a byte."""
        return _NBYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether values of this type are floating point numbers."""
        return self in (DType.F64, DType.F32, DType.F16, DType.BF16)

    @property
    def is_integer(self) -> bool:
        """Whether values are integers; b1 is not one."""
        return not self.is_float and self is not DType.B1

    @staticmethod
    def of(dtype: numpy.dtype[Any]) -> DType:
        """Return the element type of a NumPy dtype.

        Raises:
            ValueError: NumPy's type has no counterpart here.
        """
        for ours, theirs in _NUMPY.items():
            if ours is not DType.BF16 and theirs == dtype:
                return ours
        raise ValueError(f"dtype {dtype} is not supported; use one of: {', '.join(_SPELLED)}")


_NUMPY: dict[DType, numpy.dtype[Any]] = {
    DType.F64: numpy.dtype(numpy.float64),
    DType.F32: numpy.dtype(numpy.float32),
    DType.F16: numpy.dtype(numpy.float16),
    DType.BF16: numpy.dtype(numpy.float32),
    DType.I64: numpy.dtype(numpy.int64),
    DType.I32: numpy.dtype(numpy.int32),
    DType.I16: numpy.dtype(numpy.int16),
    DType.I8: numpy.dtype(numpy.int8),
    DType.U8: numpy.dtype(numpy.uint8),
    DType.B1: numpy.dtype(numpy.bool_),
}
_NBYTES = {d: (2 if d is DType.BF16 else n.itemsize) for d, n in _NUMPY.items()}
_SPELLED = tuple(d.value for d in DType)


@dataclass(frozen=True)
class TensorType:
    """A static shape, an element type and the physical order of the dimensions.

    Attributes:
        shape: The logical shape; operations are defined on it.
        dtype: The element type.
        layout: The logical dimensions in the order in which memory holds them, major to
            minor, as (0, 2, 3, 1) for an image batch kept channels last. None is
            row-major. A layout never changes what an operation means.
    """

    shape: tuple[int, ...]
    dtype: DType
    layout: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check the shape and give every layout one spelling.

        Raises:
            ValueError: A negative size, or a layout that is no permutation of the dimensions.
        """
        if any(n < 0 for n in self.shape):
            raise ValueError(f"shape {self.shape} has a negative size")
        if self.layout is None:
            return
        if sorted(self.layout) != list(range(len(self.shape))):
            raise ValueError(
                f"layout {self.layout} does not order {len(self.shape)} dimensions"
            )
        if self.layout == tuple(range(len(self.shape))):
            object.__setattr__(self, "layout", None)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @cached_property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.size * self.dtype.nbytes

    @property
    def order(self) -> tuple[int, ...]:
        """The logical dimensions, major to minor; never None."""
        return tuple(range(len(self.shape))) if self.layout is None else self.layout

    @property
    def row_major(self) -> bool:
        """Whether memory holds the dimensions in their logical order."""
        return self.layout is None

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """The sizes in the order in which memory holds them."""
        return tuple(self.shape[d] for d in self.order)

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        """Return the row-major type of another shape."""
        return TensorType(shape, self.dtype)

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return the same shape and layout with another element type."""
        return replace(self, dtype=dtype)

    def with_layout(self, layout: tuple[int, ...] | None) -> TensorType:
        """Return the same tensor kept in another physical order."""
        return replace(self, layout=layout)

    def __str__(self) -> str:
        """Return the spelling of graph text, as `f32[8,64,56,56; 0,2,3,1]`."""
        dims = ",".join(map(str, self.shape))
        order = "" if self.layout is None else "; " + ",".join(map(str, self.layout))
        return f"{self.dtype.value}[{dims}{order}]"


def f32(*shape: int) -> TensorType:
    """Return a row-major float32 type."""
    return TensorType(shape, DType.F32)


def i64(*shape: int) -> TensorType:
    """Return a row-major int64 type."""
    return TensorType(shape, DType.I64)


def b1(*shape: int) -> TensorType:
    """Return a row-major boolean type."""
    return TensorType(shape, DType.B1)
