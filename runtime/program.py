"""What runs an artifact's entries: the library inside it, or another runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import Array
from pockc.runtime.library import Entry, Library, Memory, Tensor
from pockc.runtime.manifest import ONNX, ORT_TRAINING, STEP_FILE, Manifest

if TYPE_CHECKING:
    from pockc.runtime.frozen import FrozenFile

Provider = str | tuple[str, Mapping[str, Any]]
"""An execution provider of ONNX Runtime by name, with its options if it has any."""


class Program(Protocol):
    """An open program with its state. The methods are those of `Library`."""

    entries: dict[str, Entry]
    tensors: tuple[Tensor, ...]

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called yet."""
        ...

    def close(self) -> None:
        """Give everything back. Closing twice does nothing."""
        ...

    @property
    def memory(self) -> Memory:
        """What it takes."""
        ...

    @property
    def threads(self) -> int:
        """Number of threads that run kernels."""
        ...

    def memory_of(self, tensor: Tensor) -> memoryview | None:
        """Return a tensor's memory in its own order, None if a device holds it."""
        ...

    def read(self, tensor: Tensor, first: int, target: Array) -> None:
        """Copy elements from number `first` on, in logical order, into a contiguous array."""
        ...

    def write(self, tensor: Tensor, first: int, source: Array) -> None:
        """Copy a contiguous array over the elements from number `first` on."""
        ...

    def frozen_offset(self, tensor: Tensor) -> int:
        """Return where a frozen tensor begins, counted from the first."""
        ...

    @property
    def frozen_changed(self) -> bool:
        """Whether a frozen tensor was given other values than its file holds."""
        ...

    def nonfinite_tensor(self) -> Tensor | None:
        """Return the first tensor changed by steps that holds a NaN or an infinity."""
        ...

    def run(self, entry: Entry, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Run an entry: contiguous arrays of exactly the tensors' types."""
        ...

    def train_step(self, lr: float, inputs: Sequence[Array]) -> tuple[float, bool]:
        """Take one step; return the loss and whether it is finite."""
        ...

    def progress(self) -> tuple[int, int]:
        """Return the steps taken and the seed."""
        ...

    def set_progress(self, step: int, seed: int) -> None:
        """Set the steps taken and the seed."""
        ...

    def step_seed(self, step: int, micro_batch: int = 0) -> int:
        """Return the seed that a step, counted from 1, hands to its kernels."""
        ...


def open_program(
    folder: Path,
    manifest: Manifest,
    frozen: FrozenFile,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
) -> Program:
    """Open what runs the entries of an artifact.

    Args:
        folder: The artifact.
        manifest: Its manifest.
        frozen: Its file of frozen tensors.
        threads: Threads that run kernels; None is one per processor.
        providers: For ONNX models, what runs them; None is the processor.

    Raises:
        UserError: It cannot be opened here; says why.
    """
    if manifest.program == ONNX:
        from pockc.runtime.onnx_program import OnnxProgram

        return OnnxProgram(folder, manifest, threads, providers)
    if providers:
        what = f"{folder} holds no ONNX models, so no execution provider can run it"
        fix = "leave the provider out, or compile with --backend onnx"
        raise UserError(Problem("no-provider", what, fix=fix))
    if manifest.program == ORT_TRAINING:
        what = f"{folder} is run by ONNX Runtime's training API, not by pockc"
        fix = "see backends/ort_training/README.md, or compile with --backend onnx"
        raise UserError(Problem("ort-training-artifact", what, fix=fix))
    return Library(folder / STEP_FILE, threads, (frozen.path, frozen.data_begin))
