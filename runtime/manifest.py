"""The manifest of an artifact: what it is, for which machine, and the hash of every file.

`manifest.json` is the one file of an artifact that has no hash elsewhere; it carries its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin, get_type_hints

from pockc.runtime.dtypes import BY_NAME

FORMAT = "pock-artifact"
FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
STEP_FILE = "step.so"
STEP_MODEL = "train_step.onnx"
STATE_FILE = "state.safetensors"
FROZEN_FILE = "frozen.safetensors"
GRAPH_FILE = "graph.txt.xz"
DETAILS_FILE = "details.tar.xz"
NATIVE = "native"
ONNX = "onnx"
ORT_TRAINING = "ort-training"
ANY = "any"
"""Architecture and system of a machine of which nothing is needed."""


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Which integers an input may hold.

    Attributes:
        low: The least.
        high: The greatest.
        meaning: What they are, as `label` or `token id`; for messages.
        ignore: One further value that is allowed, as the label of rows that do not count.
    """

    low: int
    high: int
    meaning: str = "value"
    ignore: int | None = None


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of one call of an entry.

    Attributes:
        name: As the model's `forward` calls it, or `target`.
        dtype: As `f32`.
        shape: Of one call; with micro-batches a step takes that many times the rows.
        batched: Whether the first dimension counts the rows of the batch.
        values: Which values it may hold; checked before every call.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batched: bool = True
    values: ValueRange | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """An output of an entry.

    Attributes:
        role: `loss`, `prediction` or `metric`.
        name: Tells outputs of a role apart.
        dtype: As `f32`.
        shape: Of one call.
        batched: Whether the first dimension counts the rows of the batch.
    """

    role: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    batched: bool = True


@dataclass(frozen=True, slots=True)
class EntrySpec:
    """An entry point: what goes in, what comes out, and what it takes.

    Attributes:
        inputs: Arrays that the caller gives.
        outputs: Arrays that the caller gets.
        reads: Tensors of the state that it needs.
        writes: Tensors of the state that it renews.
        in_place: Those of `writes` whose new value may be written over the old one.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    steps: int = 0
    arena_bytes: int = 0
    lower_bound_bytes: int = 0
    multiply_adds: int = 0


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of the model or of its optimizer, in the model's own shape.

    Attributes:
        kind: `param`, `buffer` or `opt_state`.
        dtype: As `f32`.
        shape: Row-major.
        trained: How many of its elements a step changes.
        persistent: Whether the model's `state_dict` has it; some buffers are not in it.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    trained: int = 0
    persistent: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * BY_NAME[self.dtype].nbytes

    @property
    def in_state_dict(self) -> bool:
        """Whether it is a tensor of the model's `state_dict`."""
        return self.persistent and self.kind != "opt_state"


@dataclass(frozen=True, slots=True)
class Machine:
    """What an artifact needs to run.

    Attributes:
        target: The name by which the target was chosen.
        arch: As `x86_64` or `aarch64`.
        system: As `linux`.
        features: What the processor must have, in the spelling of `/proc/cpuinfo`.
        triple: What the code was generated for.
        cpu: The processor that the code was generated for.
    """

    target: str
    arch: str
    system: str = "linux"
    features: tuple[str, ...] = ()
    triple: str = ""
    cpu: str = ""


@dataclass(frozen=True, slots=True)
class FileSpec:
    """Size and content hash of a file."""

    sha256: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about an artifact that is known without loading it.

    Attributes:
        producer: Name and version of the compiler.
        machine: Where it runs.
        batch_rows: Rows of one `train_step`.
        program: What the artifact is run by: `native` is a library with its own runtime, `onnx`
            is models for ONNX Runtime, `ort-training` models for its training API.
        micro_batches: Calls of the entry `train_step` that make one step.
        entries: `train_step`, `evaluate`, `predict` and, with micro-batches, `apply_update`.
        tensors: The model's tensors under their own names, and the optimizer's.
        aliases: A second name of a tied tensor, and the name under which it is kept.
        learning_rate: Used where none is given.
        seed: The seed of a fresh artifact.
        class_names: What the labels mean, empty if unknown.
        memory: Planned bytes: `state_bytes` and `arena_bytes` private, `frozen_bytes` mapped,
            `runtime_bytes` at most what the process takes besides.
        report: What the compiler wants to show: scheme, kernels, counts. JSON values.
        files: Every other file of the folder.
    """

    producer: str
    machine: Machine
    batch_rows: int
    entries: Mapping[str, EntrySpec]
    tensors: Mapping[str, TensorSpec]
    program: str = NATIVE
    micro_batches: int = 1
    aliases: Mapping[str, str] = field(default_factory=dict)
    learning_rate: float = 0.0
    seed: int = 0
    class_names: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileSpec] = field(default_factory=dict)

    @property
    def step_sha256(self) -> str:
        """The hash of the program of a training step, which tells artifacts apart; or ""."""
        file = self.files.get(STEP_FILE if self.program == NATIVE else STEP_MODEL)
        return "" if file is None else file.sha256


def manifest_text(manifest: Manifest) -> str:
    """Return the content of `manifest.json`. Equal manifests give equal text."""
    data = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **dataclasses.asdict(manifest),
    }
    return _dump(data | {"digest": _digest(data)})


def parse_manifest(text: str) -> Manifest:
    """Return the manifest of the content of `manifest.json`.

    Raises:
        ValueError: It is damaged. `format` and `format_version` are the caller's business.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.pop("digest", None) != _digest(data):
        raise ValueError("its content does not match its own hash")
    del data["format"], data["format_version"]
    manifest: Manifest = _decode(Manifest, data)
    return manifest


def _dump(data: object) -> str:
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dump(data).encode()).hexdigest()


def _decode(kind: Any, data: Any) -> Any:  # noqa: ANN401  any JSON into any of the types above
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if not isinstance(data, dict) or not set(data) <= set(hints):
            raise ValueError(f"{getattr(kind, '__name__', kind)} has unknown fields")
        return kind(**{k: _decode(hints[k], v) for k, v in data.items()})  # type: ignore[operator]
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(_decode(args[0], v) for v in data)
    if origin is not None and _is_mapping(origin):
        return {k: _decode(args[1], v) for k, v in data.items()}
    if origin in (Union, types.UnionType):
        return None if data is None else _decode(args[0], data)
    if kind is float and isinstance(data, int):
        return float(data)
    if kind is not Any and type(data) is not kind:
        raise ValueError(f"{data!r} is no {kind.__name__}")
    return data


def _is_mapping(origin: object) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)
