"""The state between memory and files, piece by piece: there is never a second copy of it.

A file of the state comes in two sizes. A full one has every tensor of the model and of the
optimizer. A small one has what steps change, and names by its hash the file of frozen tensors
that completes it; an artifact's own state is of this kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_NAME, Array, array_from, raw_from
from pockc.runtime.frozen import FrozenFile, copied
from pockc.runtime.library import Tensor
from pockc.runtime.manifest import FROZEN_FILE, Manifest
from pockc.runtime.program import Program
from pockc.runtime.safetensors import (
    CHUNK_BYTES,
    Header,
    NewTensor,
    StoredTensor,
    check_digest,
    read_chunks,
    read_header,
    read_into,
    read_tensor,
    write,
)

STEP_KEY = "pock.step"
SEED_KEY = "pock.seed"
FROZEN_KEY = "pock.frozen"
"""Metadata of a small file: SHA-256 of the file of frozen tensors that completes it."""

_STORED_METADATA = {"format": "pt"}


def fill(library: Program, tensor: Tensor, file: BinaryIO, stored: StoredTensor) -> None:
    """Read a tensor from a file into its memory."""
    memory = library.memory_of(tensor)
    if memory is not None and tensor.order is None and not tensor.frozen:
        file.seek(stored.begin)
        if tensor.nbytes:
            read_into(file, memory)
        return
    first = 0
    for piece in read_chunks(file, stored):
        library.write(tensor, first, piece)
        first += piece.size


def clear(library: Program, tensor: Tensor) -> None:
    """Set a tensor to zero."""
    memory = library.memory_of(tensor)
    if memory is None:
        library.write(tensor, 0, np.zeros(tensor.shape, tensor.element.numpy))
        return
    zeros = bytes(min(CHUNK_BYTES, tensor.nbytes))
    for begin in range(0, tensor.nbytes, CHUNK_BYTES):
        end = min(begin + CHUNK_BYTES, tensor.nbytes)
        memory[begin:end] = zeros[: end - begin]


def pieces(library: Program, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in logical order; a piece is valid until the next one."""
    memory = library.memory_of(tensor)
    if memory is not None and tensor.order is None:
        if tensor.nbytes:
            yield memory
        return
    count = CHUNK_BYTES // tensor.element.nbytes
    buffer = np.empty(count, tensor.element.numpy)
    for first in range(0, tensor.size, count):
        piece = buffer[: min(count, tensor.size - first)]
        library.read(tensor, first, piece)
        yield piece.data.cast("B")


def array_of(library: Program, tensor: Tensor) -> Array:
    """Return a copy of a tensor in its logical shape."""
    raw = np.empty(tensor.shape, tensor.element.numpy)
    library.read(tensor, 0, raw)
    return array_from(raw, tensor.element)


class State:
    """The tensors of an open artifact.

    Those that a step writes lie in the library's memory; those that it reads are mapped there.
    The others, as the statistics of a batch norm that was folded into its convolution, stay in
    the artifact's file.
    """

    def __init__(
        self, library: Program, manifest: Manifest, source: Path, frozen: FrozenFile
    ) -> None:
        """Keep what is needed; nothing is read.

        Args:
            library: Holds the memory.
            manifest: Names the model's tensors.
            source: The artifact's own state.
            frozen: The artifact's frozen tensors.
        """
        self._library = library
        self._manifest = manifest
        self.source = source
        self.frozen = frozen
        kept = (t for t in library.tensors if t.kind != "constant")
        self.tensors: Mapping[str, Tensor] = {t.name: t for t in kept}

    def read_initial(self) -> None:
        """Fill everything that steps change from the artifact's own file."""
        header = read_header(self.source)
        self._check_completes(self.source, header)
        self._read_all(self.source, header)

    def read_checkpoint(self, path: Path) -> None:
        """Fill everything from a checkpoint; nothing is changed if it does not fit.

        Raises:
            UserError: [state-mismatch] Tensors are missing, unknown or of another type;
                [folded-tensor] the file changes a tensor that is part of the compiled code.
        """
        header = read_header(path)
        check_digest(path, header)
        arrays = {n: (t.element.name, t.shape) for n, t in header.tensors.items()}
        self._check_completes(path, header)
        self._check_fit(str(path), arrays, small=FROZEN_KEY in header.metadata)
        with path.open("rb", buffering=0) as file:
            self._check_folded((n, read_tensor(file, t)) for n, t in header.tensors.items())
        self._read_all(path, header)

    def _check_completes(self, path: Path, header: Header) -> None:
        wanted, own = header.metadata.get(FROZEN_KEY), self._frozen_hash
        if wanted not in (None, own):
            what = f"its frozen tensors have hash {wanted}, the artifact's {own}"
            raise UserError(self._misfit(str(path), what))

    @property
    def _frozen_hash(self) -> str:
        return self._manifest.files[FROZEN_FILE].sha256

    def _read_all(self, path: Path, header: Header) -> None:
        by_name = self._by_canonical(header.tensors)
        present = {n: t for n, t in self.tensors.items() if n in by_name}
        small = FROZEN_KEY in header.metadata
        for name, tensor in self.tensors.items():
            if name in present:
                continue
            if tensor.kind == "opt_state":
                clear(self._library, tensor)
            elif tensor.frozen and small:
                self._restore(tensor)
            elif self._manifest.tensors[name].persistent:
                raise UserError(self._misfit(str(path), f"'{name}' is missing"))
        self._read(path, present, header)
        self._set_progress(header)

    def _restore(self, tensor: Tensor) -> None:
        """Give a frozen tensor what its file holds, in case it was given something else."""
        if self._library.frozen_changed:
            raw = raw_from(self.frozen.read(tensor.name), tensor.element)
            self._library.write(tensor, 0, raw)

    def _read(self, path: Path, tensors: Mapping[str, Tensor], header: Header) -> None:
        by_name = self._by_canonical(header.tensors)
        with path.open("rb", buffering=0) as file:
            for name, tensor in tensors.items():
                stored = by_name.get(name)
                if stored is None or not _same_type(tensor, stored):
                    what = f"'{name}' is missing or of another type"
                    raise UserError(self._misfit(str(path), what))
                fill(self._library, tensor, file, stored)

    def _by_canonical(self, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        """Key by the name under which a tied tensor is kept; that name itself wins."""
        aliased = {self._canonical(n): t for n, t in stored.items()}
        return aliased | dict(stored)

    def _canonical(self, name: str) -> str:
        return self._manifest.aliases.get(name, name)

    def _set_progress(self, header: Header) -> None:
        step = int(header.metadata.get(STEP_KEY, 0))
        seed = int(header.metadata.get(SEED_KEY, self._manifest.seed))
        self._library.set_progress(step, seed)

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Set the model's tensors; those of the optimizer begin anew unless given.

        Raises:
            UserError: As `read_checkpoint`.
        """
        names = {n: a for n, a in arrays.items() if n not in self._manifest.aliases}
        names |= {
            self._canonical(n): a for n, a in arrays.items() if self._canonical(n) not in names
        }
        types = {n: (self._element_for(n, a), tuple(a.shape)) for n, a in names.items()}
        self._check_fit("the given state", types)
        self._check_folded(iter(names.items()))
        for name, tensor in self.tensors.items():
            if name in names:
                self._library.write(tensor, 0, raw_from(names[name], tensor.element))
            elif tensor.kind == "opt_state":
                clear(self._library, tensor)
        self._library.set_progress(0, self._manifest.seed)

    def _element_for(self, name: str, array: Array) -> str:
        """Return the element type of an array; any float may stand for a bf16."""
        spec = self._manifest.tensors.get(name)
        if spec is not None and spec.dtype == "bf16" and array.dtype.kind == "f":
            return "bf16"
        match = (
            t.name for t in BY_NAME.values() if t.numpy == array.dtype and t.name != "bf16"
        )
        return next(match, str(array.dtype))

    def _check_fit(
        self,
        what: str,
        given: Mapping[str, tuple[str, tuple[int, ...]]],
        small: bool = False,
    ) -> None:
        specs = self._manifest.tensors
        known = {self._canonical(n) for n in given}
        if small:
            known |= set(self.frozen.tensors())
        problems = [
            self._misfit(what, f"'{n}' is missing")
            for n, s in specs.items()
            if s.in_state_dict and n not in known
        ]
        for name, (dtype, shape) in given.items():
            spec = specs.get(self._canonical(name))
            if spec is None:
                problems.append(self._misfit(what, f"there is no tensor '{name}'"))
            elif (spec.dtype, spec.shape) != (dtype, shape):
                expected = f"{spec.dtype}{list(spec.shape)}"
                text = f"'{name}' is {dtype}{list(shape)}, expected {expected}"
                problems.append(self._misfit(what, text))
        if problems:
            raise UserError(*problems)

    @staticmethod
    def _misfit(what: str, why: str) -> Problem:
        return Problem(
            "state-mismatch",
            f"{what} does not fit this artifact: {why}",
            fix="use a checkpoint of this artifact, or a state_dict of the same model",
        )

    def _check_folded(self, arrays: Iterator[tuple[str, Array]]) -> None:
        unread = self.frozen.unread(self._library)
        problems = []
        for name, array in arrays:
            canonical = self._canonical(name)
            if canonical in unread and self.frozen.read(canonical).tobytes() != array.tobytes():
                what = f"'{name}' differs, but it is frozen and part of the compiled code"
                fix = "compile the model again with these weights"
                problems.append(Problem("folded-tensor", what, fix=fix))
        if problems:
            raise UserError(*problems)

    def array(self, name: str) -> Array:
        """Return a copy of one tensor, by any of its names.

        Raises:
            UserError: [no-tensor] There is none of that name.
        """
        name = self._canonical(name)
        if name in self.tensors:
            return array_of(self._library, self.tensors[name])
        if name not in self.frozen.tensors():
            raise UserError(
                Problem(
                    "no-tensor",
                    f"there is no tensor '{name}'",
                    fix=f"choose from: {', '.join(sorted(self._manifest.tensors))}",
                )
            )
        return self.frozen.read(name)

    def write(self, file: BinaryIO, frozen_sha256: str | None = None) -> None:
        """Write optimizer, progress, and all of the model's tensors or those that steps change.

        Args:
            file: What is written.
            frozen_sha256: Write a small file, which the file of this hash completes.
        """
        step, seed = self._library.progress()
        metadata = _STORED_METADATA | {STEP_KEY: str(step), SEED_KEY: str(seed)}
        if frozen_sha256 is not None:
            metadata |= {FROZEN_KEY: frozen_sha256}
        write(file, self._new_tensors(step, full=frozen_sha256 is None), metadata)

    def _new_tensors(self, step: int, full: bool) -> Iterable[NewTensor]:
        own = read_header(self.source)
        for name, tensor in self.tensors.items():
            # Before the first step the optimizer's tensors are as they begin; what is missing
            # in a file is zero.
            untouched = tensor.kind == "opt_state" and step == 0 and name not in own.tensors
            if untouched or tensor.grad_sum or (tensor.frozen and not full):
                continue
            chunks = pieces(self._library, tensor)
            yield NewTensor(name, tensor.element, tensor.shape, chunks)
        if full:
            for stored in self.frozen.unread(self._library).values():
                yield copied(self.frozen.path, stored)


def _same_type(tensor: Tensor, stored: StoredTensor) -> bool:
    return (tensor.element, tensor.shape) == (stored.element, stored.shape)
