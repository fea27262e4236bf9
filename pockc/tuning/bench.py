"""Libraries of candidates, and how long they take on this machine.

A library is built as an artifact's is, from a plan and with the runtime inside. Each candidate
is an entry of two kernels: one in which all threads sweep over as much memory as a step
touches, then the candidate. So it finds the caches as it would inside a step, and the threads
awake.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pockc.backends import native
from pockc.backends.base import Kernel, KernelMaker
from pockc.backends.tvm.targets import Target
from pockc.ir.attrs import Attrs
from pockc.ir.graph import Graph, Input, Node, Output
from pockc.ir.roles import Batch, Prediction
from pockc.ir.types import DType, TensorType
from pockc.plan.types import (
    ALIGN_BYTES,
    EntryPlan,
    InputPort,
    Place,
    Plan,
    Space,
    StateLayout,
    Step,
)
from pockc.runtime.library import Library

FILL = "fill"
"""The entry that gives the operands their values."""

MOST_SWEEP_BYTES = 1 << 26
LEAST_SWEEP_BYTES = 1 << 20

WARM_SECONDS = 0.1
"""Longer than the system takes to move a thread that shares a processor."""

Times = Callable[[Path, Sequence[str], int], list[int]]
"""Called as `times(library, entries, threads)`: runs entries in that order and returns how many
nanoseconds the last kernel of each took. A device does the same with the library it is sent."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Places of the arena, one after the other."""

    taken: list[Place]

    def __call__(self, nbytes: int) -> Place:
        start = self.taken[-1].end_bytes if self.taken else 0
        start = -(-start // ALIGN_BYTES) * ALIGN_BYTES
        self.taken.append(Place(Space.ARENA, start, nbytes))
        return self.taken[-1]


def build_library(
    kernels: Sequence[Kernel], backend: KernelMaker, target: Target, sweep_bytes: int, out: Path
) -> None:
    """Write a library with an entry for each of some kernels for one and the same node.

    Args:
        kernels: The candidates; entries have the names of their symbols.
        backend: Who compiles them.
        target: The machine.
        sweep_bytes: Memory to touch before a candidate runs.
        out: Where the library goes.
    """
    sweep = sweep_kernel(backend, target.name, kernels[0].threads, sweep_bytes)
    plan = bench_plan(kernels, sweep)
    objects = backend.build([*kernels, sweep], target.name)
    native.link(plan, objects, out, native.NativeTarget.of_llvm(target.triple))


def sweep_kernel(backend: KernelMaker, target: str, threads: int, nbytes: int) -> Kernel:
    """Return a kernel that reads and writes so many bytes, divided between all threads."""
    nbytes = min(max(nbytes, LEAST_SWEEP_BYTES), MOST_SWEEP_BYTES)
    type_ = TensorType((nbytes // 8,), DType.F32)  # half of them is read, half written
    node = Node("y", "neg", ("x",), Attrs(), type_)
    inputs, outputs = (Input("x", type_, Batch("x")),), (Output("y", Prediction("0")),)
    selection = backend.select(Graph("sweep", inputs, (node,), outputs), target, threads)
    return next(iter(selection.kernels.values()))


def bench_plan(kernels: Sequence[Kernel], sweep: Kernel) -> Plan:
    """Return the plan of a library: `fill`, and for each kernel a sweep and its call."""
    place = _Places([])
    one = kernels[0]
    operands = [place(t.nbytes) for t in one.operands]
    inplace = one.node.attrs.get("inplace")
    results = [] if inplace is not None else [place(one.node.type.nbytes)]
    swept = (place(sweep.node.type.nbytes), place(sweep.node.type.nbytes))
    before = Step(sweep.symbol, swept, "sweep")
    count = max(len(k.workspace_bytes) for k in kernels)
    sizes = [max((*k.workspace_bytes, *[0] * count)[i] for k in kernels) for i in range(count)]
    workspaces = [place(n) for n in sizes]
    nbytes = place(0).end_bytes
    ports = tuple(
        InputPort(Batch(f"operand{i}"), TensorType((t.size,), t.dtype), p)
        for i, (t, p) in enumerate(zip(one.operands, operands, strict=True))
    )
    entries = [EntryPlan(FILL, (), ports, (), nbytes, nbytes)]
    for kernel in kernels:
        given = workspaces[: len(kernel.workspace_bytes)]
        step = Step(kernel.symbol, (*operands, *results, *given), kernel.symbol)
        entries.append(EntryPlan(kernel.symbol, (before, step), (), (), nbytes, nbytes))
    return Plan(StateLayout((), 0), tuple(entries), nbytes, 0)


_HOOK = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64
)


def local_times(path: Path, entries: Sequence[str], threads: int) -> list[int]:
    """Run entries of a library on this machine, in this order; see `Times`."""
    library = Library(path, threads)
    try:
        fill = library.entries[FILL]
        library.run(fill, [_values(t.shape, t.element.numpy) for t in fill.inputs], [])
        _warm_up(library, entries[0])
        taken: list[int] = []

        def record(_: int | None, entry: int, step: int, begin_ns: int, end_ns: int) -> None:
            del entry
            if step == 1:
                taken.append(end_ns - begin_ns)

        hook = _HOOK(record)
        dll: Any = library._dll
        dll.pk_set_step_hook.argtypes = (ctypes.c_void_p,) * 3
        dll.pk_set_step_hook(library._context, ctypes.cast(hook, ctypes.c_void_p), None)
        for name in entries:
            library.run(library.entries[name], [], [])
        return taken
    finally:
        library.close()


def _warm_up(library: Library, entry: str) -> None:
    """Run an entry until every thread has a processor: a new one begins beside its maker."""
    ends = time.monotonic() + WARM_SECONDS
    while time.monotonic() < ends:
        library.run(library.entries[entry], [], [])


def _values(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> np.ndarray:
    """Return values that are valid for any kernel: indices are 0, numbers are small."""
    if np.dtype(dtype) != np.float32:
        return np.zeros(shape, dtype)
    some = np.random.default_rng(0).standard_normal(65536, np.float32)
    return np.resize(some, shape)
