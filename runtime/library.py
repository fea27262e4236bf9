"""The C library of an artifact, by ctypes: `include/pock_core.h` with Python's types.

Nothing is decided here. Every status that is not success becomes a `UserError`.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pockc.errors import InternalError, Problem, UserError
from pockc.runtime.bindings import (
    CEntry,
    CFrozen,
    CMemory,
    CScalars,
    CTensor,
    declare,
    load_library,
)
from pockc.runtime.dtypes import ELEMENT_TYPES, Array, ElementType

ABI_VERSION = 3

OK = 0
E_NOT_FOUND = 4
E_KERNEL = 6
E_NONFINITE = 7

KINDS = (
    "param", "buffer", "opt_state", "constant",
    "batch", "lr", "step", "seed",
    "loss", "prediction", "metric",
)  # fmt: skip
_WRITTEN = 1
_GRAD_SUM = 2
_FROZEN = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that the runtime asks the system for, thread stacks excepted.

    Attributes:
        state_bytes: What steps change.
        arena_bytes: Scratch of the entries.
        runtime_bytes: Tables and scalars.
        total_bytes: The sum of these, in whole pages: private memory.
        frozen_bytes: Mapped from a file. The system loads what is read and may drop it again.
    """

    state_bytes: int
    arena_bytes: int
    runtime_bytes: int
    total_bytes: int
    frozen_bytes: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the library's tables tell of it.

    Attributes:
        index: Its number in the state, or among the inputs or outputs of an entry.
        name: As in the manifest.
        shape: The logical shape.
        order: Its dimensions as memory holds them; None is row-major.
        element: Its element type.
        kind: One of `KINDS`.
        written: Whether a step changes it.
        grad_sum: Whether it sums gradients over micro-batches; zero between steps.
        frozen: Whether it is mapped from the file of frozen tensors.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...] | None
    element: ElementType
    kind: str
    written: bool
    grad_sum: bool
    frozen: bool
    nbytes: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.nbytes // self.element.nbytes


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point as the library's tables tell of it."""

    index: int
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: int
    arena_bytes: int
    lower_bound_bytes: int


class Library:
    """A loaded `step.so` with one open context."""

    def __init__(
        self, path: Path, threads: int | None = None, frozen: tuple[Path, int] | None = None
    ) -> None:
        """Load the library and open a context.

        Args:
            path: The library.
            threads: Threads that run kernels; None is one per processor.
            frozen: The file of frozen tensors, and where they begin in it.

        Raises:
            UserError: [library-load] The system does not load it; [library-abi] it was built
                for another runtime; [not-enough-memory]; [no-threads].
        """
        self._context = ctypes.c_void_p()
        self._file, self._dll = load_library(path)
        found = int(self._dll.pk_abi_version())
        if found != ABI_VERSION:
            self.close()
            raise UserError(
                Problem(
                    "library-abi",
                    f"{path} speaks version {found} of the runtime's interface, "
                    f"this pockc speaks {ABI_VERSION}",
                    fix="compile the model again, or install the pockc that compiled it",
                )
            )
        declare(self._dll)
        self._open(threads or 0, frozen)
        self.entries = {e.name: e for e in map(self._entry, range(self._count("entry")))}
        self.tensors = tuple(self._tensor(i) for i in range(self._count("tensor")))

    def _open(self, threads: int, frozen: tuple[Path, int] | None) -> None:
        needed = CMemory()
        self._check(self._dll.pk_memory_needed(threads, ctypes.byref(needed)))
        available = available_bytes()
        refused = available is not None and needed.total_bytes > available
        status = 2 if refused else self._open_context(threads, frozen)
        if status == 2:
            self.close()
            has = "it" if available is None else f"{available} bytes are free and it"
            raise UserError(
                Problem(
                    "not-enough-memory",
                    f"the artifact needs {needed.total_bytes} bytes of memory; {has} "
                    "cannot be opened",
                    fix="close other programs, or compile with a smaller batch or fewer "
                    "trained tensors",
                )
            )
        self._check(status)

    def _open_context(self, threads: int, frozen: tuple[Path, int] | None) -> int:
        context = ctypes.byref(self._context)
        if frozen is None:
            return int(self._dll.pk_open(threads, None, context))
        with frozen[0].open("rb") as file:
            where = CFrozen(file.fileno(), 0, frozen[1])
            return int(self._dll.pk_open(threads, ctypes.byref(where), context))

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called yet."""
        return self._context.value is not None

    def close(self) -> None:
        """Give everything back to the system. Closing twice does nothing."""
        if self._context.value is not None:
            self._dll.pk_close(self._context)
            self._context = ctypes.c_void_p()
        if self._dll is not None:
            # Before its descriptor: whoever gets that number next must not get this library.
            _ctypes.dlclose(self._dll._handle)
            self._dll = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _count(self, what: str) -> int:
        return int(getattr(self._dll, f"pk_{what}_count")(self._context))

    def _entry(self, index: int) -> Entry:
        info = CEntry()
        self._check(self._dll.pk_entry_at(self._context, index, ctypes.byref(info)))
        inputs = tuple(self._port("input", index, i) for i in range(info.inputs))
        outputs = tuple(self._port("output", index, i) for i in range(info.outputs))
        name, figures = info.name.decode(), (info.arena_bytes, info.lower_bound_bytes)
        return Entry(index, name, inputs, outputs, info.steps, *figures)

    def _port(self, what: str, entry: int, index: int) -> Tensor:
        pointer = ctypes.POINTER(CTensor)()
        function = getattr(self._dll, f"pk_{what}_at")
        self._check(function(self._context, entry, index, ctypes.byref(pointer)))
        return _tensor_of(index, pointer.contents)

    def _tensor(self, index: int) -> Tensor:
        pointer = ctypes.POINTER(CTensor)()
        self._check(self._dll.pk_tensor_at(self._context, index, ctypes.byref(pointer)))
        return _tensor_of(index, pointer.contents)

    @property
    def memory(self) -> Memory:
        """What the context takes."""
        used = CMemory()
        self._check(self._dll.pk_memory_used(self._context, ctypes.byref(used)))
        return Memory(**{f: getattr(used, f) for f in Memory.__slots__})

    @property
    def threads(self) -> int:
        """Number of threads that run kernels, the caller's included."""
        return int(self._dll.pk_threads(self._context))

    @property
    def micro_batches(self) -> int:
        """Calls of the entry `train_step` that make one step."""
        return int(self._dll.pk_micro_batches(self._context))

    def steps(self, entry: Entry) -> list[tuple[str, str]]:
        """Return kernel and node of every step of an entry."""
        kernel, node = ctypes.c_char_p(), ctypes.c_char_p()
        found = []
        for i in range(entry.steps):
            names = (ctypes.byref(kernel), ctypes.byref(node))
            self._check(self._dll.pk_step_at(self._context, entry.index, i, *names))
            found.append(((kernel.value or b"").decode(), (node.value or b"").decode()))
        return found

    def set_step_hook(self, hook: Any) -> None:  # noqa: ANN401  a ctypes function
        """Let a C function be called after every kernel; None ends that."""
        function = self._dll.pk_set_step_hook
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        address = None if hook is None else ctypes.cast(hook, ctypes.c_void_p)
        function(self._context, address, None)

    def memory_of(self, tensor: Tensor) -> memoryview:
        """Return the memory of a tensor of the state, in its own order."""
        pointer = ctypes.c_void_p()
        self._check(
            self._dll.pk_tensor_memory(self._context, tensor.index, ctypes.byref(pointer))
        )
        array = (ctypes.c_ubyte * tensor.nbytes).from_address(pointer.value or 0)
        return memoryview(array).cast("B")

    def read(self, tensor: Tensor, first: int, target: Array) -> None:
        """Copy elements from number `first` on, in logical order, into a contiguous array."""
        self._check(
            self._dll.pk_tensor_read(
                self._context, tensor.index, first, target.size, target.ctypes.data
            )
        )

    def write(self, tensor: Tensor, first: int, source: Array) -> None:
        """Copy a contiguous array over the elements from number `first` on."""
        self._check(
            self._dll.pk_tensor_write(
                self._context, tensor.index, first, source.size, source.ctypes.data
            )
        )

    def frozen_offset(self, tensor: Tensor) -> int:
        """Return where a frozen tensor begins, counted from the first."""
        offset = ctypes.c_uint64()
        self._check(
            self._dll.pk_frozen_offset(self._context, tensor.index, ctypes.byref(offset))
        )
        return offset.value

    @property
    def frozen_changed(self) -> bool:
        """Whether a frozen tensor was given other values than its file holds."""
        return bool(self._dll.pk_frozen_changed(self._context))

    def nonfinite_tensor(self) -> Tensor | None:
        """Return the first tensor changed by steps that holds a NaN or an infinity."""
        index = ctypes.c_uint32()
        status = self._dll.pk_state_check(self._context, ctypes.byref(index))
        if status == E_NONFINITE:
            return self.tensors[index.value]
        self._check(status)
        return None

    def run(self, entry: Entry, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Run an entry: contiguous arrays of exactly the tensors' types."""
        scalars = CScalars(0.0, 0, 1, 0)
        self._check(
            self._dll.pk_run(
                self._context,
                entry.index,
                ctypes.byref(scalars),
                _pointers(inputs),
                _pointers(outputs),
            )
        )

    def train_step(self, lr: float, inputs: Sequence[Array]) -> tuple[float, bool]:
        """Take one step; return the loss and whether it is finite."""
        loss = ctypes.c_float()
        status = self._dll.pk_train_step(
            self._context, lr, _pointers(inputs), ctypes.byref(loss)
        )
        if status != E_NONFINITE:
            self._check(status)
        return loss.value, status == OK

    def progress(self) -> tuple[int, int]:
        """Return the steps taken and the seed."""
        step, seed = ctypes.c_uint64(), ctypes.c_int64()
        self._check(
            self._dll.pk_progress_get(self._context, ctypes.byref(step), ctypes.byref(seed))
        )
        return step.value, seed.value

    def set_progress(self, step: int, seed: int) -> None:
        """Set the steps taken and the seed."""
        self._check(self._dll.pk_progress_set(self._context, step, seed))

    def step_seed(self, step: int, micro_batch: int = 0) -> int:
        """Return the seed that a step, counted from 1, hands to its kernels."""
        seed = self.progress()[1]
        return int(self._dll.pk_step_seed(seed, step, micro_batch))

    def _check(self, status: int) -> None:
        if status == OK:
            return
        text = self._dll.pk_status_text(status).decode()
        if status == E_KERNEL:
            text += self._failed_step()
        raise InternalError(Problem("runtime-status", f"the runtime reports: {text}"))

    def _failed_step(self) -> str:
        entry, step, code = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_int32()
        places = (ctypes.byref(entry), ctypes.byref(step), ctypes.byref(code))
        self._dll.pk_failed_step(self._context, *places)
        found = next(e for e in self.entries.values() if e.index == entry.value)
        kernel, node = self.steps(found)[step.value]
        return f" ({kernel} for %{node} in {found.name} returned {code.value})"


def available_bytes() -> int | None:
    """Return the memory that the system can still give, None if it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _tensor_of(index: int, c: CTensor) -> Tensor:
    return Tensor(
        index=index,
        name=c.name.decode(),
        shape=tuple(c.shape[: c.rank]) if c.rank else (),
        order=tuple(c.order[: c.rank]) if c.order else None,
        element=ELEMENT_TYPES[c.dtype],
        kind=KINDS[c.kind],
        written=bool(c.flags & _WRITTEN),
        grad_sum=bool(c.flags & _GRAD_SUM),
        frozen=bool(c.flags & _FROZEN),
        nbytes=c.nbytes,
    )


def _pointers(arrays: Sequence[Array]) -> Any:  # noqa: ANN401  an array type made at run time
    addresses = (a.ctypes.data if a.size else None for a in arrays)
    return (ctypes.c_void_p * max(len(arrays), 1))(*addresses)


def empty_outputs(entry: Entry) -> list[Array]:
    """Return arrays for the outputs of one call."""
    return [np.empty(o.shape, o.element.numpy) for o in entry.outputs]
