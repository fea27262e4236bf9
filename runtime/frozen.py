"""The file of frozen tensors: what no step changes, laid out as memory holds it.

The runtime maps it, so that opening copies nothing and only what is read takes memory. It is a
safetensors file with its own rules:

- First come the tensors of the program, each at the offset that the plan gives it, counted from
  the end of the header, which is a multiple of 64. What lies between two is a tensor of bytes
  named `pock.pad.<offset>`: the format allows no gaps.
- A tensor that memory holds in another order than row-major has its dimensions in that order
  here; the metadata `pock.order` tells it.
- Of ONNX models the tensors of the program are their external data, which they find by place.
- Then come the model's tensors that no step reads, as the statistics of a batch norm that was
  folded into its convolution. Only an export reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_NAME, Array
from pockc.runtime.library import Tensor
from pockc.runtime.program import Program
from pockc.runtime.safetensors import (
    Header,
    NewTensor,
    StoredTensor,
    read_header,
    read_tensor,
    stored_pieces,
    write_in_order,
)

ALIGN_BYTES = 64
CONSTANT = "pock.constant."
"""Before the name of what ONNX models read and the user's model does not have."""

ORDER_KEY = "pock.order"
_PAD = "pock.pad."
_HIDDEN = (_PAD, CONSTANT)
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class FrozenTensor:
    """A tensor to write.

    Attributes:
        tensor: Its name, its shape as memory holds it, and its bytes in that order.
        offset: Where it belongs; None if no step reads it.
        order: Its dimensions as memory holds them; None is row-major.
    """

    tensor: NewTensor
    offset: int | None = None
    order: tuple[int, ...] | None = None


def write_frozen(file: BinaryIO, tensors: Iterable[FrozenTensor]) -> None:
    """Write the file. Equal input gives equal bytes."""
    given = list(tensors)
    placed = sorted((t for t in given if t.offset is not None), key=lambda t: t.offset or 0)
    rest = sorted((t.tensor for t in given if t.offset is None), key=_by_width)
    orders = {t.tensor.name: list(t.order) for t in placed if t.order is not None}
    metadata = {"format": "pt"}
    if orders:
        metadata[ORDER_KEY] = json.dumps(orders, separators=(",", ":"), sort_keys=True)
    write_in_order(file, [*_padded(placed), *rest], metadata, ALIGN_BYTES)


def _by_width(tensor: NewTensor) -> tuple[int, str]:
    return -tensor.element.nbytes, tensor.name


def _padded(placed: Sequence[FrozenTensor]) -> Iterator[NewTensor]:
    end = 0
    for frozen in placed:
        offset = frozen.offset or 0
        if offset > end:
            yield _pad(end, offset - end)
        yield frozen.tensor
        end = offset + frozen.tensor.nbytes
    if end % ALIGN_BYTES:
        yield _pad(end, -end % ALIGN_BYTES)


def _pad(offset: int, nbytes: int) -> NewTensor:
    zeros = bytes(min(nbytes, _PAGE_BYTES))
    sizes = (min(_PAGE_BYTES, nbytes - n) for n in range(0, nbytes, _PAGE_BYTES))
    chunks = (zeros[:size] for size in sizes)
    return NewTensor(f"{_PAD}{offset}", BY_NAME["u8"], (nbytes,), chunks)


@dataclass(frozen=True, slots=True)
class FrozenFile:
    """The file of an artifact: which tensors it has and in which order each is kept."""

    path: Path
    header: Header
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> FrozenFile:
        """Read the header.

        Raises:
            UserError: [damaged-tensors] The file is not what the format demands.
        """
        header = read_header(path)
        try:
            orders = json.loads(header.metadata.get(ORDER_KEY, "{}"))
            return cls(path, header, {n: tuple(map(int, o)) for n, o in orders.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise _misplaced(path, f"its orders are unreadable: {error}") from error

    @property
    def data_begin(self) -> int:
        """Where the first tensor begins in the file."""
        return self.header.data_begin

    def tensors(self) -> Mapping[str, StoredTensor]:
        """Return the tensors by name, each in the shape in which the file has it.

        What only ONNX models read is none of them: those find it by its place in the file.
        """
        return {n: t for n, t in self.header.tensors.items() if not n.startswith(_HIDDEN)}

    def check(self, library: Program) -> None:
        """Check that the program finds its tensors where it looks for them.

        Raises:
            UserError: [damaged-tensors] One is missing, elsewhere or of another type.
        """
        for tensor in library.tensors:
            stored = self.header.tensors.get(tensor.name)
            if not tensor.frozen:
                continue
            if stored is None or not self._fits(library, tensor, stored):
                raise _misplaced(
                    self.path, f"'{tensor.name}' is not where the program reads it"
                )

    def _fits(self, library: Program, tensor: Tensor, stored: StoredTensor) -> bool:
        order = self.orders.get(tensor.name)
        shape = _kept_shape(tensor.shape, order)
        offset = stored.begin - self.data_begin
        return (
            (tensor.order, tensor.element, shape) == (order, stored.element, stored.shape)
            and library.frozen_offset(tensor) == offset
        )  # fmt: skip

    def read(self, name: str) -> Array:
        """Return one tensor in its logical shape."""
        with self.path.open("rb", buffering=0) as file:
            array = read_tensor(file, self.header.tensors[name])
        order = self.orders.get(name)
        return (
            array if order is None else np.ascontiguousarray(array.transpose(np.argsort(order)))
        )

    def unread(self, library: Program) -> dict[str, StoredTensor]:
        """Return the model's tensors that no step reads."""
        known = {t.name for t in library.tensors}
        return {n: t for n, t in self.tensors().items() if n not in known}

    def rewritten(self, library: Program) -> Iterator[FrozenTensor]:
        """Yield what a new file holds: the program's tensors as they are now, the others."""
        for tensor in library.tensors:
            if tensor.frozen:
                shape = _kept_shape(tensor.shape, tensor.order)
                memory = library.memory_of(tensor)
                chunks = () if memory is None or not tensor.nbytes else (memory,)
                new = NewTensor(tensor.name, tensor.element, shape, chunks)
                yield FrozenTensor(new, library.frozen_offset(tensor), tensor.order)
        for stored in self.unread(library).values():
            yield FrozenTensor(copied(self.path, stored))


def _kept_shape(shape: tuple[int, ...], order: tuple[int, ...] | None) -> tuple[int, ...]:
    return shape if order is None else tuple(shape[d] for d in order)


def copied(path: Path, stored: StoredTensor) -> NewTensor:
    """Return a tensor of another file, to be written as it is."""
    return NewTensor(stored.name, stored.element, stored.shape, stored_pieces(path, stored))


def _misplaced(path: Path, why: str) -> UserError:
    fix = "copy the folder again, or compile the model again"
    return UserError(Problem("damaged-tensors", f"{path} does not fit: {why}", fix=fix))
