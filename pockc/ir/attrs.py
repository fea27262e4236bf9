"""Attributes of a node: an immutable, hashable mapping."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from pockc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from pockc.ir.graph import Graph


class Literal:
    """A constant array, compared by content. The array is made read-only."""

    __slots__ = ("_digest", "array")

    def __init__(self, array: np.ndarray) -> None:
        """Copy the array unless it is already read-only and contiguous."""
        kept = np.ascontiguousarray(array).reshape(np.shape(array))
        if kept.flags.writeable:
            kept = kept.copy()
            kept.flags.writeable = False
        self.array = kept
        self._digest: str | None = None

    @property
    def type(self) -> TensorType:
        """The type of the array, row-major."""
        return TensorType(self.array.shape, DType.of(self.array.dtype))

    @property
    def digest(self) -> str:
        """SHA-256 of type and bytes, in hexadecimal."""
        if self._digest is None:
            sha = hashlib.sha256(str(self.type).encode())
            sha.update(self.array.tobytes())
            self._digest = sha.hexdigest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        """Compare type and content."""
        return isinstance(other, Literal) and self.digest == other.digest

    def __hash__(self) -> int:
        """Hash the content."""
        return hash(self.digest)

    def __repr__(self) -> str:
        """Name the type and the first digits of the content's hash."""
        return f"Literal({self.type}, {self.digest[:12]})"


AttrValue = Union[int, float, bool, str, None, DType, Literal, "Graph", tuple["AttrValue", ...]]


class Attrs(Mapping[str, Any]):
    """An immutable mapping from names to values, kept in the order of the names.

    Values are read as `Any`: what type an attribute has is the business of its op, whose
    `infer` checks it.
    """

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[str, AttrValue] | None = None) -> None:
        """Take the items; lists become tuples."""
        pairs = sorted((items or {}).items())
        self._items: dict[str, AttrValue] = {k: _frozen(v) for k, v in pairs}
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401
        """Return the value of a name."""
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in alphabetical order."""
        return iter(self._items)

    def __len__(self) -> int:
        """Return the number of attributes."""
        return len(self._items)

    def __hash__(self) -> int:
        """Hash names and values."""
        if self._hash is None:
            self._hash = hash(tuple((k, _hashable(v)) for k, v in self._items.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Compare names and values; 1, 1.0 and True differ, and a nan equals a nan."""
        if not isinstance(other, Attrs):
            return NotImplemented
        mine, theirs = self._items, other._items
        return mine.keys() == theirs.keys() and all(
            _hashable(v) == _hashable(theirs[k]) for k, v in mine.items()
        )

    def __repr__(self) -> str:
        """Return the items."""
        return f"Attrs({self._items!r})"

    def but(self, **changed: AttrValue) -> Attrs:
        """Return a copy with some values changed or added."""
        return Attrs({**self._items, **changed})

    def without(self, *names: str) -> Attrs:
        """Return a copy that lacks some names."""
        return Attrs({k: v for k, v in self._items.items() if k not in names})


def _frozen(value: AttrValue) -> AttrValue:
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value


def _hashable(value: AttrValue) -> object:
    if isinstance(value, tuple):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, float):
        return (float, value.hex())
    return (type(value), value)
