"""The safetensors format: a length, a JSON header, then the tensors' bytes.

Reading checks every number before it is used: a damaged file is refused, not believed. Writing
streams, so that a file can be larger than memory. See
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_STORED, Array, ElementType, array_from
from pockc.runtime.files import previous_of

CHUNK_BYTES = 1 << 16
DIGEST_KEY = "pock.sha256"
"""Metadata with the SHA-256 of the whole file, these 64 digits counted as zeros."""

_NO_DIGEST = "0" * 64
_MAX_HEADER_BYTES = 100_000_000
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file. `begin` and `end` count from the start of the file."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    data_begin: int


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write; `chunks` gives its bytes in logical row-major order."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    chunks: Iterable[bytes | memoryview] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.element.nbytes


def read_header(path: Path) -> Header:
    """Read and check the header of a file.

    Raises:
        UserError: [damaged-tensors] The file is not what the format demands.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise _damaged(path, f"its header cannot be {length} of {size} bytes")
        text = file.read(length)
    try:
        data = json.loads(text)
        return _header(path, data, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its header is unreadable: {error}") from error


def _header(path: Path, data: dict[str, Any], begin: int, size: int) -> Header:
    metadata = {str(k): str(v) for k, v in data.pop(_METADATA, {}).items()}
    tensors = {}
    for name, entry in data.items():
        element, shape = BY_STORED[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        first, last = (int(n) for n in entry["data_offsets"])
        expected = math.prod(shape) * element.nbytes
        if min(shape, default=0) < 0 or first < 0 or last - first != expected:
            raise _damaged(path, f"'{name}' has {last - first} bytes where {expected} belong")
        tensors[name] = StoredTensor(name, element, shape, begin + first, begin + last)
    end = begin
    for tensor in sorted(tensors.values(), key=lambda t: (t.begin, t.end)):
        if tensor.begin != end:
            raise _damaged(path, f"'{tensor.name}' overlaps its neighbour or leaves a gap")
        end = tensor.end
    if end != size:
        raise _damaged(path, f"it has {size} bytes where its header tells of {end}")
    return Header(tensors, metadata, begin)


def _damaged(path: Path, why: str) -> UserError:
    previous = previous_of(path)
    fix = f"use the one before it: {previous}" if previous.exists() else "copy the file again"
    what = f"{path} is no valid safetensors file: {why}"
    return UserError(Problem("damaged-tensors", what, fix=fix))


def check_digest(path: Path, header: Header) -> None:
    """Check the content of a file that carries its own hash; others are taken as they are.

    Raises:
        UserError: [damaged-tensors] The content is not what was written.
    """
    expected = header.metadata.get(DIGEST_KEY)
    if expected is None:
        return
    begin = header.data_begin
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        head = file.read(begin)
        digest.update(head.replace(expected.encode(), _NO_DIGEST.encode(), 1))
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    if digest.hexdigest() != expected:
        raise _damaged(path, "its content does not match its own hash")


def read_chunks(
    file: BinaryIO, tensor: StoredTensor, nbytes: int = CHUNK_BYTES
) -> Iterator[Array]:
    """Yield the raw elements of a tensor in pieces, each valid until the next one."""
    count = max(nbytes // tensor.element.nbytes, 1)
    buffer = np.empty(count, tensor.element.numpy)
    file.seek(tensor.begin)
    left = (tensor.end - tensor.begin) // tensor.element.nbytes
    while left > 0:
        piece = buffer[: min(left, count)]
        read_into(file, piece.data.cast("B"))
        yield piece
        left -= len(piece)


def stored_pieces(path: Path, tensor: StoredTensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor of a file; a piece is valid until the next one."""
    with path.open("rb", buffering=0) as file:
        for piece in read_chunks(file, tensor):
            yield piece.data.cast("B")


def read_into(file: BinaryIO, target: memoryview) -> None:
    """Fill `target` from the file.

    Raises:
        UserError: [damaged-tensors] The file ends before.
    """
    done = 0
    while done < len(target):
        got = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not got:
            raise _damaged(Path(str(file.name)), "it ends too early")
        done += got


def read_all(path: Path) -> dict[str, Array]:
    """Return every tensor of a file; bf16 as float32."""
    header = read_header(path)
    arrays = {}
    with path.open("rb", buffering=0) as file:
        for name, tensor in header.tensors.items():
            arrays[name] = read_tensor(file, tensor)
    return arrays


def read_tensor(file: BinaryIO, tensor: StoredTensor) -> Array:
    """Return one tensor; bf16 as float32."""
    raw = np.empty(tensor.shape, tensor.element.numpy)
    file.seek(tensor.begin)
    if raw.size:
        read_into(file, raw.reshape(-1).data.cast("B"))
    return array_from(raw, tensor.element)


def write(file: BinaryIO, tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> None:
    """Write a file: widest elements first, then by name, so that all are aligned.

    Equal input gives equal bytes. The file is seekable and at its beginning: its hash is filled
    in when the rest is written.
    """
    write_in_order(file, sorted(tensors, key=lambda t: (-t.element.nbytes, t.name)), metadata)


def write_in_order(
    file: BinaryIO,
    ordered: Sequence[NewTensor],
    metadata: Mapping[str, str],
    align_bytes: int = 8,
) -> None:
    """As `write`, in this order; the first tensor begins at a multiple of `align_bytes`."""
    text = _header_text(ordered, metadata)
    text += b" " * (-(8 + len(text)) % align_bytes)
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head)
    file.write(head)
    for tensor in ordered:
        for chunk in tensor.chunks:
            digest.update(chunk)
            file.write(chunk)
    file.seek(head.index(_NO_DIGEST.encode()))
    file.write(digest.hexdigest().encode())


def _header_text(ordered: Sequence[NewTensor], metadata: Mapping[str, str]) -> bytes:
    # The metadata is the first entry: the hash's place is found before any tensor's name.
    header: dict[str, Any] = {
        _METADATA: {DIGEST_KEY: _NO_DIGEST} | dict(sorted(metadata.items()))
    }
    end = 0
    for tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[tensor.name] = {
            "dtype": tensor.element.stored,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    return json.dumps(header, separators=(",", ":")).encode()


def array_chunks(array: Array) -> Iterator[memoryview]:
    """Yield the bytes of a contiguous array."""
    if array.size:
        yield array.reshape(-1).data.cast("B")
