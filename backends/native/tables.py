"""Writes a plan as C: constant tables that the runtime reads, and one call per kernel.

The C source depends on the plan alone. Everything in it is `static const` data and calls of one
line, so that thousands of steps compile in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pockc.errors import InternalError, Problem
from pockc.ir.roles import (
    Batch,
    Buffer,
    InputRole,
    Loss,
    Metric,
    OptState,
    OutputRole,
    Param,
    Prediction,
    Scalar,
    state_written,
)
from pockc.ir.types import TensorType
from pockc.plan.names import GRAD_SUM_SLOT, tensor_name
from pockc.plan.types import (
    COPY_KERNEL,
    Constant,
    EntryPlan,
    Place,
    Plan,
    Space,
    StateKey,
    Step,
)

_SPACES = {
    Space.STATE: "PK_SPACE_STATE",
    Space.FROZEN: "PK_SPACE_FROZEN",
    Space.ARENA: "PK_SPACE_ARENA",
    Space.SCALAR: "PK_SPACE_SCALAR",
}
_SCALARS = {"lr": "PK_LR", "step": "PK_STEP", "seed": "PK_SEED"}


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A row of the kernel table: a symbol, and for copies also the size."""

    symbol: str
    arity: int
    nbytes: int = 0

    @property
    def is_copy(self) -> bool:
        return self.symbol == COPY_KERNEL

    @property
    def call_name(self) -> str:
        return f"copy_{self.nbytes}" if self.is_copy else f"call_{self.symbol}"


def table_source(plan: Plan, micro_batches: int = 1) -> str:
    """Return the C source of a plan's tables. Equal plans give equal text.

    Raises:
        InternalError: [kernel-arity] A kernel is called with different numbers of arguments.
    """
    kernels = _kernels(plan)
    numbers = {kernel: i for i, kernel in enumerate(kernels)}
    types = _Types()
    tensors = _tensor_rows(plan, types)
    entries = [_Entry(i, e, numbers, types) for i, e in enumerate(plan.entries)]
    parts = [
        '#include <string.h>\n\n#include "pock_program.h"',
        *_kernel_source(kernels),
        *types.source(),
        _array("pk_value", "tensors", tensors),
        *(part for e in entries for part in e.parts),
        _array("pk_entry", "entries", [e.row for e in entries]),
        _program_source(plan, len(kernels), micro_batches),
    ]
    return "\n\n".join(parts) + "\n"


def _program_source(plan: Plan, kernel_count: int, micro_batches: int) -> str:
    fields = {
        "abi_version": "PK_ABI_VERSION",
        "micro_batches": micro_batches,
        "kernels": "kernels",
        "entries": "entries",
        "tensors": "tensors",
        "kernel_count": kernel_count,
        "entry_count": len(plan.entries),
        "tensor_count": len(plan.state.slots),
        "state_bytes": plan.state.nbytes,
        "frozen_bytes": plan.state.frozen_nbytes,
        "arena_bytes": plan.arena_bytes,
        "scalar_bytes": plan.scalar_bytes,
    }
    lines = "\n".join(f"    .{name} = {value}," for name, value in fields.items())
    return f"const pk_program pk_linked_program = {{\n{lines}\n}};"


def _kernel_of(step: Step) -> _Kernel:
    if step.kernel == COPY_KERNEL:
        return _Kernel(COPY_KERNEL, 2, step.args[0].nbytes)
    return _Kernel(step.kernel, len(step.args))


def _kernels(plan: Plan) -> list[_Kernel]:
    found = {_kernel_of(s) for e in plan.entries for s in e.steps}
    kernels = sorted(found, key=lambda k: (k.symbol, k.nbytes, k.arity))
    named = {k.call_name for k in kernels}
    if len(named) != len(kernels):
        twice = sorted(
            {f"{k.symbol} with {k.arity}" for k in kernels if _calls(kernels, k.call_name) > 1}
        )
        what = f"kernels are called with different numbers of arguments: {', '.join(twice)}"
        raise InternalError(Problem("kernel-arity", what))
    return kernels


def _calls(kernels: Iterable[_Kernel], name: str) -> int:
    return sum(k.call_name == name for k in kernels)


def _kernel_source(kernels: Sequence[_Kernel]) -> list[str]:
    calls = []
    for k in kernels:
        if k.is_copy:
            body = f"memcpy(a[1], a[0], {k.nbytes}u); return 0;"
            calls.append(f"static int32_t {k.call_name}(void *const *a) {{ {body} }}")
            continue
        pointers = ", ".join(["void *"] * k.arity) or "void"
        args = ", ".join(f"a[{i}]" for i in range(k.arity))
        calls.append(
            f"int32_t {k.symbol}({pointers});\n"
            f"static int32_t {k.call_name}(void *const *a) {{ return {k.symbol}({args}); }}"
        )
    rows = [f"{{{k.call_name}, {_text(k.symbol)}, {k.arity}u}}" for k in kernels]
    return ["\n".join(calls), _array("pk_kernel", "kernels", rows)]


class _Types:
    """Shapes and layouts, each array once."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[int, ...], str] = {}
        self._orders: dict[tuple[int, ...], str] = {}

    def row(self, name: str, kind: str, tensor: TensorType, flags: str, place: Place) -> str:
        """Return the initialiser of a `pk_value`."""
        shape = "NULL" if not tensor.shape else self._named(self._shapes, tensor.shape, "shape")
        order = "NULL"
        if tensor.layout is not None:
            order = self._named(self._orders, tensor.layout, "order")
        dtype = f"PK_{tensor.dtype.name}"
        info = (_text(name), shape, order, f"{tensor.nbytes}u", dtype, kind)
        return f"{{{{{', '.join(info)}, {tensor.rank}u, {flags}}}, {_place(place)}}}"

    @staticmethod
    def _named(table: dict[tuple[int, ...], str], key: tuple[int, ...], kind: str) -> str:
        return table.setdefault(key, f"{kind}_{len(table)}")

    def source(self) -> list[str]:
        """Return the arrays; call it after the last `row`."""
        shapes = [_array("int64_t", n, map(str, s)) for s, n in self._shapes.items()]
        orders = [_array("uint32_t", n, (f"{d}u" for d in o)) for o, n in self._orders.items()]
        return shapes + orders


def _tensor_rows(plan: Plan, types: _Types) -> list[str]:
    written = {state_written(o.role) for e in plan.entries for o in e.outputs}
    rows = []
    for slot in plan.state.slots:
        flags = ["PK_WRITTEN"] if slot.key in written else []
        if isinstance(slot.key, OptState) and slot.key.slot == GRAD_SUM_SLOT:
            flags.append("PK_GRAD_SUM")
        if slot.space is Space.FROZEN:
            flags.append("PK_FROZEN")
        if slot.gathered:
            flags.append("PK_GATHERED")
        name, kind = tensor_name(slot.key), _state_kind(slot.key)
        rows.append(types.row(name, kind, slot.type, " | ".join(flags) or "0u", slot.place))
    return rows


def _state_kind(key: StateKey) -> str:
    kinds: Mapping[type, str] = {
        Param: "PK_PARAM",
        Buffer: "PK_BUFFER",
        OptState: "PK_OPT_STATE",
        Constant: "PK_CONSTANT",
    }
    return kinds[type(key)]


class _Entry:
    """The tables of one entry."""

    def __init__(
        self, number: int, entry: EntryPlan, kernels: Mapping[_Kernel, int], types: _Types
    ) -> None:
        self._prefix = f"e{number}"
        self._entry = entry
        self.parts: list[str] = []
        steps: list[str] = []
        places: list[str] = []
        for step in entry.steps:
            steps.append(f"{{{kernels[_kernel_of(step)]}u, {len(places)}u}}")
            places += [_place(p) for p in step.args]
        batches = [
            types.row(i.role.name, "PK_BATCH", i.type, "0u", i.place)
            for i in entry.inputs
            if isinstance(i.role, Batch)
        ]
        scalars = [
            types.row(i.role.name, _scalar_kind(i.role), i.type, "0u", i.place)
            for i in entry.inputs
            if isinstance(i.role, Scalar)
        ]
        outputs = [
            types.row(*_output_name(o.role), o.type, "0u", o.place)
            for o in entry.outputs
            if isinstance(o.role, Loss | Prediction | Metric)
        ]
        columns = {
            "steps": ("pk_step", steps),
            "places": ("uint64_t", places),
            "nodes": ("char *const", [_text(s.node) for s in entry.steps]),
            "inputs": ("pk_value", batches),
            "scalars": ("pk_value", scalars),
            "outputs": ("pk_value", outputs),
        }
        names = {c: self._add(c, kind, rows) for c, (kind, rows) in columns.items()}
        counts = (steps, places, batches, scalars, outputs)
        fields = [_text(entry.name), *names.values(), *(f"{len(c)}u" for c in counts)]
        fields += [f"{entry.arena_bytes}u", f"{entry.lower_bound_bytes}u"]
        self.row = f"{{{', '.join(fields)}}}"

    def _add(self, column: str, kind: str, rows: Sequence[str]) -> str:
        if not rows:
            return "NULL"
        name = f"{self._prefix}_{column}"
        self.parts.append(_array(kind, name, rows))
        return name


def _scalar_kind(role: InputRole) -> str:
    if not isinstance(role, Scalar) or role.name not in _SCALARS:
        what = f"{role} is no scalar that the runtime gives: {', '.join(_SCALARS)}"
        raise InternalError(Problem("unknown-scalar", what))
    return _SCALARS[role.name]


def _output_name(role: OutputRole) -> tuple[str, str]:
    match role:
        case Prediction(name):
            return name, "PK_PREDICTION"
        case Metric(name):
            return name, "PK_METRIC"
        case _:
            return "loss", "PK_LOSS"


def _place(place: Place) -> str:
    return f"PK_PLACE({_SPACES[place.space]}, {place.offset_bytes}u)"


def _array(kind: str, name: str, rows: Iterable[str]) -> str:
    # C has no empty arrays; the counts say that nothing of this one is read.
    lines = [f"    {row}," for row in rows] or ["    {0},"]
    prefix = "static const char *const" if kind == "char *const" else f"static const {kind}"
    return f"{prefix} {name}[] = {{\n" + "\n".join(lines) + "\n};"


def _text(text: str) -> str:
    """Return a C string literal; whatever is not plain ASCII is written in octal."""
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}"
        for b in text.encode()
    )
    return '"' + "".join(plain) + '"'
