"""Writes an artifact: everything to a temporary folder first, which then takes its name.

Equal contents give equal bytes: names are sorted and nothing tells the time or the place.
"""

from __future__ import annotations

import lzma
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pockc.artifact.details import packed_details
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
    state_written,
)
from pockc.ir.types import TensorType
from pockc.plan.names import tensor_name
from pockc.plan.product import Made, Product
from pockc.plan.types import Constant, Space, StateKey, StateSlot
from pockc.runtime.dtypes import BY_NAME, raw_from
from pockc.runtime.files import replaced_folder
from pockc.runtime.frozen import FrozenTensor, write_frozen
from pockc.runtime.manifest import (
    DETAILS_FILE,
    FROZEN_FILE,
    GRAPH_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    EntrySpec,
    FileSpec,
    InputSpec,
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
        product: What the backend made: files, tensors, entries.
        values: Every parameter and buffer of the model by its own name, row-major.
        buffers: Which of `values` are buffers.
        graph_text: The final graphs, for people.
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
        report: Anything worth showing besides what the product tells. JSON values.
        details: Texts for `show` and `report`, by name.
    """

    product: Product
    values: Mapping[str, np.ndarray]
    buffers: frozenset[str]
    graph_text: str
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
    report: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


def write_artifact(path: Path, contents: Contents) -> Manifest:
    """Write an artifact's folder, replacing an older artifact of that name.

    Raises:
        UserError: [foreign-folder] There is something else; [write-failed] the system refused,
            as on a full disk, and what was there is untouched.
        InternalError: [artifact-values] The program wants a tensor that `values` lacks, or that
            has another type there.
    """
    _check_values(contents)
    check_replaceable(path)
    with replaced_folder(path) as folder:
        for name, source in contents.product.files.items():
            shutil.copyfile(source, folder / name)
            if name in contents.product.programs:
                (folder / name).chmod(0o755)
        if FROZEN_FILE not in contents.product.files:
            _write_frozen(folder / FROZEN_FILE, contents)
        _write_state(folder / STATE_FILE, contents, sha256_of(folder / FROZEN_FILE))
        # A large model's is a megabyte of text, much of it alike.
        (folder / GRAPH_FILE).write_bytes(lzma.compress(contents.graph_text.encode()))
        if contents.details:
            (folder / DETAILS_FILE).write_bytes(packed_details(contents.details))
        files = {
            f.name: FileSpec(sha256_of(f), f.stat().st_size) for f in sorted(folder.iterdir())
        }
        manifest = replace(_manifest(contents), files=files)
        (folder / MANIFEST_FILE).write_text(manifest_text(manifest), encoding="utf-8")
    return manifest


def _check_values(contents: Contents) -> None:
    problems = []
    for slot in contents.product.state:
        if not isinstance(slot.key, Param | Buffer):
            continue
        name, value = slot.key.name, contents.values.get(slot.key.name)
        if value is None or tuple(value.shape) != slot.type.shape:
            found = "nothing" if value is None else f"shape {list(value.shape)}"
            what = f"the program holds {name} as {slot.type}, the model has {found}"
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
    for slot in contents.product.state:
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
    slots = contents.product.state
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
    product = contents.product
    return Manifest(
        producer=contents.producer,
        program=product.program,
        machine=product.machine,
        batch_rows=contents.batch_rows,
        entries={e.name: _entry(e, contents) for e in product.entries},
        tensors=dict(_tensor_specs(contents)),
        micro_batches=contents.micro_batches,
        aliases=dict(contents.aliases),
        learning_rate=contents.learning_rate,
        seed=contents.seed,
        class_names=contents.class_names,
        memory=dict(product.memory),
        report=dict(contents.report) | dict(product.report),
    )


def _entry(entry: Made, contents: Contents) -> EntrySpec:
    rows = contents.batch_rows // contents.micro_batches
    by_row: Callable[[TensorType], bool] = lambda t: t.shape[:1] == (rows,)  # noqa: E731
    inputs = [
        InputSpec(
            name=role.name,
            dtype=tensor.dtype.value,
            shape=tensor.shape,
            batched=by_row(tensor),
            values=contents.input_values.get(role.name),
        )
        for role, tensor in entry.inputs
        if isinstance(role, Batch)
    ]
    outputs = [
        _output(role, tensor, by_row(tensor))
        for role, tensor in entry.outputs
        if isinstance(role, Loss | Prediction | Metric)
    ]
    return EntrySpec(
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        reads=_state_names(r for r, _ in entry.inputs),
        writes=_state_names(state_written(r) for r, _ in entry.outputs),
        in_place=_state_names(entry.in_place),
        steps=entry.steps,
        arena_bytes=entry.arena_bytes,
        lower_bound_bytes=entry.lower_bound_bytes,
        multiply_adds=contents.multiply_adds.get(entry.name, 0),
    )


def _state_names(roles: Iterable[InputRole | StateKey | None]) -> tuple[str, ...]:
    return tuple(tensor_name(r) for r in roles if isinstance(r, Param | Buffer | OptState))


def _output(role: OutputRole, tensor: TensorType, batched: bool) -> OutputSpec:
    name = "loss" if isinstance(role, Loss) else str(getattr(role, "name", ""))
    return OutputSpec(role.keyword, name, tensor.dtype.value, tensor.shape, batched)


def _tensor_specs(contents: Contents) -> Iterator[tuple[str, TensorSpec]]:
    slots = {tensor_name(s.key): s for s in contents.product.state}
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
