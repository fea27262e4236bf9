"""Writes an artifact: everything to a temporary folder first, which then takes its name.

Equal contents give equal bytes: names are sorted and nothing tells the time or the place.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pockc.errors import InternalError, Problem
from pockc.ir.roles import Batch, Buffer, Loss, Metric, OptState, Param, Prediction
from pockc.ir.types import TensorType
from pockc.plan.names import tensor_name
from pockc.plan.types import Constant, EntryPlan, OutputPort, Plan, Space, StateSlot
from pockc.runtime.dtypes import BY_NAME, raw_from
from pockc.runtime.files import replaced_folder
from pockc.runtime.frozen import FrozenTensor, write_frozen
from pockc.runtime.manifest import (
    FROZEN_FILE,
    GRAPH_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    STEP_FILE,
    EntrySpec,
    FileSpec,
    InputSpec,
    Machine,
    Manifest,
    OutputSpec,
    TensorSpec,
    ValueRange,
    manifest_text,
)
from pockc.runtime.opening import check_replaceable, sha256_of
from pockc.runtime.safetensors import NewTensor, array_chunks, write
from pockc.runtime.state import FROZEN_KEY, SEED_KEY, STEP_KEY


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an artifact.

    Attributes:
        plan: Its tensors and entries; what `library` was linked from.
        library: The linked `step.so`.
        values: Every parameter and buffer of the model by its own name, row-major.
        buffers: Which of `values` are buffers.
        graph_text: The final graphs, for people.
        machine: Where it runs; see `machine_for`.
        batch_rows: Rows of one training step, micro-batches together.
        producer: Name and version of the compiler.
        micro_batches: Calls of `train_step` that make one step.
        aliases: Second names of tied tensors.
        hidden: Which of `values` are not in the model's `state_dict`.
        initial: Tensors of the optimizer that do not begin as zeros.
        learning_rate: Used where none is given.
        seed: The seed of the first step.
        class_names: What the labels mean.
        input_values: Which integers a batch input may hold, by its name.
        trained: Elements that a step changes, by name of the parameter.
        multiply_adds: By entry.
        memory: Planned bytes by category, besides those that the plan tells.
        report: Anything else worth showing: scheme, kernels. JSON values.
        programs: What runs it where there is no Python, by name: `pock-run` and its library.
    """

    plan: Plan
    library: Path
    values: Mapping[str, np.ndarray]
    buffers: frozenset[str]
    graph_text: str
    machine: Machine
    batch_rows: int
    producer: str = "pockc"
    micro_batches: int = 1
    aliases: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    initial: Mapping[OptState, np.ndarray] = field(default_factory=dict)
    learning_rate: float = 0.0
    seed: int = 0
    class_names: tuple[str, ...] = ()
    input_values: Mapping[str, ValueRange] = field(default_factory=dict)
    trained: Mapping[str, int] = field(default_factory=dict)
    multiply_adds: Mapping[str, int] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    programs: Mapping[str, Path] = field(default_factory=dict)


def machine_for(target: str, triple: str, cpu: str, features: Sequence[str] = ()) -> Machine:
    """Return what code for a target needs of the machine that runs it.

    Args:
        target: The name by which the target was chosen.
        triple: LLVM's triple.
        cpu: LLVM's name of the processor.
        features: What the processor must have, in the spelling of `/proc/cpuinfo`.
    """
    arch = triple.partition("-")[0]
    return Machine(target, arch, "linux", tuple(features), triple, cpu)


def write_artifact(path: Path, contents: Contents) -> Manifest:
    """Write an artifact's folder, replacing an older artifact of that name.

    Raises:
        UserError: [foreign-folder] There is something else; [write-failed] the system refused,
            as on a full disk, and what was there is untouched.
        InternalError: [artifact-values] The plan wants a tensor that `values` lacks, or that
            has another type there.
    """
    _check_values(contents)
    check_replaceable(path)
    with replaced_folder(path) as folder:
        shutil.copyfile(contents.library, folder / STEP_FILE)
        for name, program in contents.programs.items():
            shutil.copy(program, folder / name)
            (folder / name).chmod(0o755)
        _write_frozen(folder / FROZEN_FILE, contents)
        _write_state(folder / STATE_FILE, contents, sha256_of(folder / FROZEN_FILE))
        (folder / GRAPH_FILE).write_text(contents.graph_text, encoding="utf-8")
        files = {
            f.name: FileSpec(sha256_of(f), f.stat().st_size) for f in sorted(folder.iterdir())
        }
        manifest = replace(_manifest(contents), files=files)
        (folder / MANIFEST_FILE).write_text(manifest_text(manifest), encoding="utf-8")
    return manifest


def _check_values(contents: Contents) -> None:
    problems = []
    for slot in contents.plan.state.slots:
        if not isinstance(slot.key, Param | Buffer):
            continue
        name, value = slot.key.name, contents.values.get(slot.key.name)
        if value is None or tuple(value.shape) != slot.type.shape:
            found = "nothing" if value is None else f"shape {list(value.shape)}"
            what = f"the plan holds {name} as {slot.type}, the model has {found}"
            problems.append(Problem("artifact-values", what))
    if problems:
        raise InternalError(*problems)


def _write_state(path: Path, contents: Contents, frozen_sha256: str) -> None:
    metadata = {
        "format": "pt",
        STEP_KEY: "0",
        SEED_KEY: str(contents.seed),
        FROZEN_KEY: frozen_sha256,
    }
    with path.open("wb") as file:
        write(file, _state_tensors(contents), metadata)


def _write_frozen(path: Path, contents: Contents) -> None:
    with path.open("wb") as file:
        write_frozen(file, _frozen_tensors(contents))


def _state_tensors(contents: Contents) -> Iterator[NewTensor]:
    for slot in contents.plan.state.slots:
        value = _value_of(slot, contents)
        if slot.space is Space.STATE and value is not None:
            yield _new_tensor(tensor_name(slot.key), value, slot.type.dtype.value)


def _value_of(slot: StateSlot, contents: Contents) -> np.ndarray | None:
    """Return what a tensor begins with, None for zeros of the optimizer."""
    match slot.key:
        case Param(name) | Buffer(name):
            return contents.values[name]
        case OptState():
            return contents.initial.get(slot.key)
        case Constant():
            return None if slot.literal is None else slot.literal.array


def _frozen_tensors(contents: Contents) -> Iterator[FrozenTensor]:
    """Yield what steps only read, then the model's tensors that none of them reads."""
    slots = contents.plan.state.slots
    for slot in slots:
        value = _value_of(slot, contents)
        if slot.space is Space.FROZEN and value is not None:
            order = slot.type.layout
            kept = value if order is None else value.transpose(order)
            new = _new_tensor(tensor_name(slot.key), kept, slot.type.dtype.value)
            yield FrozenTensor(new, slot.offset_bytes, order)
    known = {tensor_name(s.key) for s in slots}
    for name, value in sorted(contents.values.items()):
        if name not in known:
            yield FrozenTensor(_new_tensor(name, value, _dtype_of(value)))


def _new_tensor(name: str, value: np.ndarray, dtype: str) -> NewTensor:
    element = BY_NAME[dtype]
    return NewTensor(name, element, tuple(value.shape), _Lazily(value, element.name))


@dataclass(frozen=True, slots=True)
class _Lazily:
    """The bytes of an array, converted only while they are written."""

    value: np.ndarray
    dtype: str

    def __iter__(self) -> Iterator[memoryview]:
        return array_chunks(raw_from(self.value, BY_NAME[self.dtype]))


def _dtype_of(value: np.ndarray) -> str:
    return next(t.name for t in BY_NAME.values() if t.numpy == value.dtype and t.name != "bf16")


def _manifest(contents: Contents) -> Manifest:
    plan = contents.plan
    entries = {e.name: _entry(e, contents) for e in plan.entries}
    memory = {
        "state_bytes": plan.state.nbytes,
        "frozen_bytes": plan.state.frozen_nbytes,
        "arena_bytes": plan.arena_bytes,
    }
    return Manifest(
        producer=contents.producer,
        machine=contents.machine,
        batch_rows=contents.batch_rows,
        entries=entries,
        tensors=dict(_tensor_specs(contents)),
        micro_batches=contents.micro_batches,
        aliases=dict(contents.aliases),
        learning_rate=contents.learning_rate,
        seed=contents.seed,
        class_names=contents.class_names,
        memory=memory | dict(contents.memory),
        report=contents.report,
    )


def _entry(entry: EntryPlan, contents: Contents) -> EntrySpec:
    rows = contents.batch_rows // contents.micro_batches
    by_row: Callable[[TensorType], bool] = lambda t: t.shape[:1] == (rows,)  # noqa: E731
    inputs = [
        InputSpec(
            name=i.role.name,
            dtype=i.type.dtype.value,
            shape=i.type.shape,
            batched=by_row(i.type),
            values=contents.input_values.get(i.role.name),
        )
        for i in entry.inputs
        if isinstance(i.role, Batch)
    ]
    outputs = [
        _output(o, by_row(o.type))
        for o in entry.outputs
        if isinstance(o.role, Loss | Prediction | Metric)
    ]
    return EntrySpec(
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        steps=len(entry.steps),
        arena_bytes=entry.arena_bytes,
        lower_bound_bytes=entry.lower_bound_bytes,
        multiply_adds=contents.multiply_adds.get(entry.name, 0),
    )


def _output(port: OutputPort, batched: bool) -> OutputSpec:
    name = "loss" if isinstance(port.role, Loss) else str(getattr(port.role, "name", ""))
    return OutputSpec(port.role.keyword, name, port.type.dtype.value, port.type.shape, batched)


def _tensor_specs(contents: Contents) -> Iterator[tuple[str, TensorSpec]]:
    slots = {tensor_name(s.key): s for s in contents.plan.state.slots}
    for name, value in sorted(contents.values.items()):
        kind = "buffer" if name in contents.buffers else "param"
        dtype = slots[name].type.dtype.value if name in slots else _dtype_of(value)
        trained = contents.trained.get(name, 0)
        persistent = name not in contents.hidden
        yield name, TensorSpec(kind, dtype, tuple(value.shape), trained, persistent)
    for name, slot in slots.items():
        if isinstance(slot.key, OptState):
            yield name, _optimizer_spec(slot)


def _optimizer_spec(slot: StateSlot) -> TensorSpec:
    size = math.prod(slot.type.shape)
    return TensorSpec("opt_state", slot.type.dtype.value, slot.type.shape, size)
