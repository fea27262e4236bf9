"""An artifact's ONNX models, run by ONNX Runtime; the state stays where the provider runs.

Each model takes the state and returns it anew. Every tensor of the state has one buffer, or two
that take turns where the old value may still be read when the new one is written. They are
bound to the model once (on a GPU: when the first steps have put them there), so that a step
copies nothing but its batch and its loss.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_NAME, Array
from pockc.runtime.library import Entry, Memory, Tensor
from pockc.runtime.manifest import InputSpec, Manifest, OutputSpec, TensorSpec
from pockc.runtime.onnx_providers import chosen, device_of, new_session, onnxruntime
from pockc.runtime.onnx_state import Bound, Slot, bind_state, value_of

_IN_PLACE = "pockc.in_place"
_PORTS = "pockc.io"


@dataclass(frozen=True)
class _Port:
    name: str
    role: str
    tensor: str


@dataclass
class _Model:
    """A loaded entry: its session, what it reads and writes, and the memory for both."""

    session: Any
    reads: tuple[_Port, ...]
    writes: tuple[_Port, ...]
    batch: list[Array]
    scalars: dict[str, Array]
    results: dict[str, Array]
    given: list[tuple[str, Any]]
    shown: list[tuple[str, Any]]
    bindings: dict[tuple[tuple[int, int], ...], Bound]


@dataclass(frozen=True)
class Recorded:
    """ONNX Runtime's own record of a session.

    Attributes:
        path: Events in Chrome's trace format.
        start_ns: The clock where their times begin.
    """

    path: Path
    start_ns: int


class OnnxProgram:
    """The models of an artifact with an open state."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
    ) -> None:
        """Allocate the state; a model is loaded when it is first run.

        Raises:
            UserError: [no-onnxruntime] It is not installed; [no-provider] it lacks a provider.
        """
        self._ort = onnxruntime()
        self._folder, self._manifest = folder, manifest
        self._threads = threads
        self._providers = chosen(self._ort, providers)
        self._device = device_of(self._providers[0])
        self._step, self._seed = 0, manifest.seed
        self._models: dict[str, _Model] = {}
        self._recordings: Path | None = None
        self._open = True
        self.entries = {
            name: _entry(i, name, manifest) for i, name in enumerate(sorted(manifest.entries))
        }
        self._slots = self._allocate()
        self.tensors = tuple(s.tensor for s in self._slots.values())

    def _allocate(self) -> dict[str, Slot]:
        entries = self._manifest.entries.values()
        names = sorted({n for e in entries for n in (*e.reads, *e.writes)})
        written = {n for e in entries for n in e.writes}
        twice = {n for e in entries for n in e.writes if n not in e.in_place}
        sums = self._manifest.entries["train_step"].writes if self._parts > 1 else ()
        slots = {}
        for index, name in enumerate(names):
            spec = self._manifest.tensors[name]
            tensor = _state_tensor(index, name, spec, name in written, name in sums)
            slots[name] = Slot(self._ort, tensor, 2 if name in twice else 1, self._device)
        return slots

    @property
    def _parts(self) -> int:
        return self._manifest.micro_batches

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called yet."""
        return self._open

    def close(self) -> None:
        """Let go of models and state. Closing twice does nothing."""
        self._open = False
        # What is bound lies in memory of the session's, which must outlive it.
        for model in self._models.values():
            model.bindings.clear()
            model.given.clear()
            model.shown.clear()
        self._slots.clear()
        self._models.clear()

    @property
    def memory(self) -> Memory:
        """What the state takes; ONNX Runtime allocates everything else by itself."""
        nbytes = sum(s.tensor.nbytes * len(s.buffers) for s in self._slots.values())
        return Memory(nbytes, 0, 0, nbytes, 0)

    @property
    def threads(self) -> int:
        """Number of threads that run kernels on the processor."""
        return self._threads or len(os.sched_getaffinity(0))

    def prepare(self, entry: str) -> None:
        """Load an entry's model now rather than when it is first run."""
        self._model(entry)

    def start_recording(self, folder: Path) -> None:
        """Load the models anew, so that ONNX Runtime records when each operator runs."""
        self._models.clear()
        self._recordings = folder

    def stop_recording(self) -> dict[str, Recorded]:
        """Return what ONNX Runtime recorded of each entry that ran."""
        self._recordings = None
        found = {}
        for name, model in self._models.items():
            start = int(model.session.get_profiling_start_time_ns())
            found[name] = Recorded(Path(model.session.end_profiling()), start)
        self._models.clear()
        return found

    def memory_of(self, tensor: Tensor) -> memoryview | None:
        """Return a tensor's memory, None if a device holds it."""
        slot = self._slots[tensor.name]
        return (
            memoryview(slot.array().reshape(-1).view(np.uint8).data)
            if slot.device.is_host
            else None
        )

    def read(self, tensor: Tensor, first: int, target: Array) -> None:
        """Copy elements from number `first` on into a contiguous array."""
        source = self._slots[tensor.name].array()
        target.reshape(-1)[:] = source.reshape(-1)[first : first + target.size]

    def write(self, tensor: Tensor, first: int, source: Array) -> None:
        """Copy a contiguous array over the elements from number `first` on."""
        self._slots[tensor.name].write(first, source)

    def frozen_offset(self, tensor: Tensor) -> int:
        """Return 0: what is frozen is part of the models."""
        return 0 * tensor.index

    @property
    def frozen_changed(self) -> bool:
        """Whether a frozen tensor was given other values: none can be."""
        return False

    def nonfinite_tensor(self) -> Tensor | None:
        """Return the first tensor changed by steps that holds a NaN or an infinity."""
        for slot in self._slots.values():
            if not slot.tensor.written or slot.tensor.element.kind != "f":
                continue
            if not np.isfinite(slot.array()).all():
                return slot.tensor
        return None

    def run(self, entry: Entry, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Run an entry: contiguous arrays of exactly the tensors' types."""
        model = self._model(entry.name)
        self._call(model, inputs, {"lr": 0.0, "step": 1, "seed": 0})
        for tensor, output in zip(entry.outputs, outputs, strict=True):
            output[...] = model.results[tensor.name]

    def train_step(self, lr: float, inputs: Sequence[Array]) -> tuple[float, bool]:
        """Take one step; return the loss and whether it is finite."""
        model, parts = self._model("train_step"), self._parts
        total = 0.0
        step = self._step + 1
        for part in range(parts):
            own = [a.reshape(parts, -1)[part] for a in inputs] if parts > 1 else inputs
            numbers = {"lr": lr, "step": step, "seed": self.step_seed(step, part)}
            self._call(model, own, numbers)
            loss = float(model.results["loss"])
            total += loss
            if not math.isfinite(loss):
                self._clear_sums()
                return total / parts, False
        if "apply_update" in self.entries:
            self._call(self._model("apply_update"), (), {"lr": lr, "step": step, "seed": 0})
        self._step = step
        return total / parts, True

    def _clear_sums(self) -> None:
        for slot in self._slots.values():
            if slot.tensor.grad_sum:
                self.write(
                    slot.tensor, 0, np.zeros(slot.tensor.shape, slot.tensor.element.numpy)
                )

    def progress(self) -> tuple[int, int]:
        """Return the steps taken and the seed."""
        return self._step, self._seed

    def set_progress(self, step: int, seed: int) -> None:
        """Set the steps taken and the seed."""
        self._step, self._seed = step, seed

    def step_seed(self, step: int, micro_batch: int = 0) -> int:
        """Return the seed that a step, counted from 1, hands to its kernels: `pk_step_seed`."""
        gamma = 0x9E3779B97F4A7C15
        return _mix(_mix(self._seed + gamma) + step * gamma + micro_batch) >> 1

    def _call(
        self, model: _Model, inputs: Sequence[Array], numbers: Mapping[str, float]
    ) -> None:
        for memory, given in zip(model.batch, inputs, strict=True):
            memory[...] = given.reshape(memory.shape)
        for name, memory in model.scalars.items():
            memory[...] = numbers[name]
        bound = self._bound(model)
        if not self._device.is_host:
            _bind_given(model, bound)  # which is what copies them to a device
        self._run(model.session, bound)
        made = bound.binding.get_outputs() if any(bound.made) else bound.made
        for port, of, value in zip(model.writes, bound.made, made, strict=False):
            self._slots[port.tensor].turn(value if of else None)

    def _run(self, session: Any, bound: Bound) -> None:  # noqa: ANN401
        try:
            session.run_with_iobinding(bound.binding)
        except Exception as error:
            own = self._providers[0][0].removesuffix("ExecutionProvider").lower()
            what = f"ONNX Runtime {self._ort.__version__} fails on {own}: {error}"
            fix = (
                "if the provider lacks an operator: take a newer onnxruntime, or the processor"
            )
            raise UserError(Problem("onnx-run", what, fix=fix)) from error

    def _bound(self, model: _Model) -> Bound:
        """Return the binding for the buffers whose turn it is; there are two in the end."""
        reads = [(p.name, self._slots[p.tensor]) for p in model.reads]
        writes = [(p.name, self._slots[p.tensor]) for p in model.writes]
        places = tuple(s.place for _, s in (*reads, *writes))
        if places not in model.bindings:
            versions = [v for _, v in places]
            for old in [k for k in model.bindings if [v for _, v in k] != versions]:
                del model.bindings[old]
            bound = bind_state(model.session, reads, writes, self._device)
            if self._device.is_host:
                _bind_given(model, bound)
            for name, value in model.shown:
                bound.binding.bind_ortvalue_output(name, value)
            model.bindings[places] = bound
        return model.bindings[places]

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            self._models[name] = self._load(name)
        return self._models[name]

    def _load(self, name: str) -> _Model:
        path, spec = self._folder / f"{name}.onnx", self._manifest.entries[name]
        session = new_session(self._ort, path, self._providers, self._threads, self._recordings)
        ports = json.loads(session.get_modelmeta().custom_metadata_map[_PORTS])
        inputs = [_Port(p["name"], p["role"], p["tensor"]) for p in ports["inputs"]]
        outputs = [_Port(p["name"], p["role"], p.get("tensor", "")) for p in ports["outputs"]]
        types = {i.name: i.type for i in session.get_inputs()}
        model = _Model(
            session,
            reads=tuple(p for p in inputs if p.role not in ("batch", "scalar")),
            writes=tuple(p for p in outputs if p.tensor),
            batch=[],
            scalars={},
            results={},
            given=[],
            shown=[],
            bindings={},
        )
        specs: dict[str, InputSpec] = {s.name: s for s in spec.inputs}
        for port in inputs:
            if port.role == "batch":
                own = specs[port.tensor]
                array = np.zeros(own.shape, BY_NAME[own.dtype].numpy)
                model.batch.append(array)
                model.given.append((port.name, value_of(self._ort, array, own.dtype)))
            elif port.role == "scalar":
                scalar = np.zeros((), _SCALARS[types[port.name]])
                model.scalars[port.tensor] = scalar
                model.given.append((port.name, value_of(self._ort, scalar, "")))
        shown: list[OutputSpec] = list(spec.outputs)
        for port, out in zip((p for p in outputs if not p.tensor), shown, strict=True):
            array = np.zeros(out.shape, BY_NAME[out.dtype].numpy)
            model.results[out.name] = array
            model.shown.append((port.name, value_of(self._ort, array, out.dtype)))
        return model


_SCALARS = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def _bind_given(model: _Model, bound: Bound) -> None:
    for name, value in model.given:
        bound.binding.bind_ortvalue_input(name, value)


def _mix(x: int) -> int:
    """Return the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), on 64 bits."""
    wide = 2**64 - 1
    x &= wide
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & wide
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & wide
    return x ^ (x >> 31)


def _state_tensor(
    index: int, name: str, spec: TensorSpec, written: bool, grad_sum: bool
) -> Tensor:
    element = BY_NAME[spec.dtype]
    nbytes = math.prod(spec.shape) * element.nbytes
    return Tensor(
        index, name, spec.shape, None, element, spec.kind, written, grad_sum, False, nbytes
    )


def _entry(index: int, name: str, manifest: Manifest) -> Entry:
    spec = manifest.entries[name]

    def port(number: int, of: InputSpec | OutputSpec, kind: str) -> Tensor:
        element = BY_NAME[of.dtype]
        nbytes = math.prod(of.shape) * element.nbytes
        return Tensor(
            number, of.name, of.shape, None, element, kind, False, False, False, nbytes
        )

    inputs = tuple(port(i, s, "batch") for i, s in enumerate(spec.inputs))
    outputs = tuple(port(i, s, s.role) for i, s in enumerate(spec.outputs))
    return Entry(index, name, inputs, outputs, spec.steps, 0, 0)
