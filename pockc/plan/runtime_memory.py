"""A bound on what the runtime takes besides state and arena, computed from a plan.

A budget is met if the process that runs the step stays within it, so it counts what that
process (`pock-run`) takes for itself. All of it is private memory and comes in whole pages:

- tables: what `pk_open` lays out before the state (`runtime/src/context.c`): the address of
  every argument of every call, threads, scalars; and what rounds state and arena up to pages;
- relocated: the tables in `step.so` that hold pointers (`backends/native/tables.py`), which the
  loader fills in when it opens the library;
- stacks: of the threads beside the first, as far as kernels touch them;
- process: loader, C library and heap of `libpock`: the only part that the plan does not tell.

What data takes that `pock-run` has to unpack comes besides, and so does Python, where it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pockc.ir.roles import Batch, Loss, Metric, Prediction, Scalar
from pockc.plan.types import ALIGN_BYTES, EntryPlan, Plan

POINTER_BYTES = 8
"""Half of that on 32-bit systems: what is counted is more than enough there."""
CONTEXT_BYTES = 1024
"""`pk_context` with its locks, and what aligns the tables behind it; 512 on x86-64."""
WORKER_BYTES = 24
"""`pk_worker`."""
STEP_BYTES = 32
"""A kernel with its symbol (24) and the name of a node: as if each call had its own kernel."""
VALUE_BYTES = 56
"""`pk_value`: a tensor of the state, an input or an output."""
ENTRY_BYTES = 128
"""`pk_entry`."""
LIBRARY_BYTES = 1024
"""Sections of `step.so` that the loader writes to for the runtime's own calls."""
LIBRARY_PAGES = 3
"""The relocated range begins and ends within a page, and plain data has one of its own."""
STACK_BYTES = 32 << 10
"""Of a thread: its block in the C library (4 KiB), the pool's frames, and those of kernels, of
which the largest found takes 2.7 KiB; `tests/backends` holds kernels to a quarter of this."""
PROCESS_PAGES = 48
"""Data of pock-run, libpock, the C library, its loader and their stack: 35 with glibc 2.36."""
HEAP_BYTES = 160 << 10
"""Of libpock: 112 KiB, of which a buffer for files is 64."""
HEADER_BYTES = 256
"""A tensor's row in the header of a file that is read or written."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the runtime keeps tables of. The numbers of parts of a plan add up.

    Attributes:
        steps: Kernel calls, copies included.
        arguments: Their arguments.
        tensors: Tensors of state and frozen memory.
        ports: Inputs and outputs of entries, those of the state apart.
    """

    steps: int = 0
    arguments: int = 0
    tensors: int = 0
    ports: int = 0

    def __add__(self, other: Tables) -> Tables:
        """Return the sum."""
        return Tables(
            self.steps + other.steps,
            self.arguments + other.arguments,
            self.tensors + other.tensors,
            self.ports + other.ports,
        )

    def most(self, other: Tables) -> Tables:
        """Return the larger numbers of two."""
        return Tables(
            max(self.steps, other.steps),
            max(self.arguments, other.arguments),
            max(self.tensors, other.tensors),
            max(self.ports, other.ports),
        )


@dataclass(frozen=True, slots=True)
class Host:
    """What the bound depends on besides the plan.

    Attributes:
        threads: Threads that run kernels.
        page_bytes: What the system hands out memory in.
    """

    threads: int = 1
    page_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class RuntimeMemory:
    """The parts of the bound; see the module."""

    tables_bytes: int
    relocated_bytes: int
    stacks_bytes: int
    process_bytes: int

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.tables_bytes + self.relocated_bytes + self.stacks_bytes + self.process_bytes


def runtime_memory(plan: Plan, host: Host) -> RuntimeMemory:
    """Return the bound for a plan."""
    tables = sum(map(entry_tables, plan.entries), Tables(tensors=len(plan.state.slots)))
    return runtime_bound(tables, plan.state.nbytes, plan.arena_bytes, host)


def entry_tables(entry: EntryPlan) -> Tables:
    """Return what the runtime keeps tables of for one entry."""
    ports = sum(isinstance(i.role, Batch | Scalar) for i in entry.inputs)
    ports += sum(isinstance(o.role, Loss | Prediction | Metric) for o in entry.outputs)
    return Tables(len(entry.steps), sum(len(s.args) for s in entry.steps), 0, ports)


def runtime_bound(
    tables: Tables, state_bytes: int, arena_bytes: int, host: Host
) -> RuntimeMemory:
    """Return the bound for so many rows of tables.

    Args:
        tables: Of all entries together.
        state_bytes: Of the state.
        arena_bytes: Of the arena.
        host: What runs it.
    """
    page = host.page_bytes
    context = CONTEXT_BYTES + POINTER_BYTES * tables.arguments + WORKER_BYTES * host.threads
    rounding = sum(_rounded(n, page) - n for n in (state_bytes, arena_bytes))
    rows = STEP_BYTES * tables.steps + VALUE_BYTES * (tables.tensors + tables.ports)
    heap = HEAP_BYTES + HEADER_BYTES * tables.tensors
    return RuntimeMemory(
        tables_bytes=_rounded(context + _MOST_ENTRIES * ALIGN_BYTES, page) + rounding,
        relocated_bytes=_rounded(rows + LIBRARY_BYTES + _MOST_ENTRIES * ENTRY_BYTES, page)
        + LIBRARY_PAGES * page,
        stacks_bytes=(host.threads - 1) * (_rounded(STACK_BYTES, page) + page),
        process_bytes=PROCESS_PAGES * page + _rounded(heap, page),
    )


_MOST_ENTRIES = 4  # train_step, apply_update, evaluate, predict


def _rounded(nbytes: int, page_bytes: int) -> int:
    return -(-nbytes // page_bytes) * page_bytes
