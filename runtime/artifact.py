"""An open artifact: train, evaluate, predict, and take the weights home."""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.data import Batches
from pockc.runtime.dtypes import Array, array_from
from pockc.runtime.evaluation import evaluate
from pockc.runtime.files import replaced_file, replaced_folder
from pockc.runtime.frozen import FrozenFile, write_frozen
from pockc.runtime.inputs import check_inputs, padded, row_count, sliced
from pockc.runtime.library import Entry, Memory, empty_outputs
from pockc.runtime.manifest import (
    FROZEN_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    EntrySpec,
    FileSpec,
    InputSpec,
    Manifest,
    manifest_text,
)
from pockc.runtime.opening import (
    check_files,
    check_machine,
    check_replaceable,
    read_manifest,
    sha256_of,
)
from pockc.runtime.program import Program, Provider, open_program
from pockc.runtime.state import State
from pockc.runtime.training import History, TrainOptions, train


def load(
    path: str | Path,
    threads: int | None = None,
    *,
    owns_folder: bool = False,
    providers: Sequence[Provider] | None = None,
) -> Artifact:
    """Open an artifact.

    Args:
        path: The folder, `name.pock`.
        threads: Threads that run kernels; None is one per processor that may be used.
        owns_folder: Delete the folder when the artifact is closed.
        providers: Execution providers of ONNX Runtime, for artifacts of ONNX models: names as
            "cuda", or pairs of a name and options.

    Raises:
        UserError: It is no artifact, damaged, of another version or for another machine, or
            needs more memory than there is.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_machine(folder, manifest.machine)
    check_files(folder, manifest)
    frozen = FrozenFile.open(folder / FROZEN_FILE)
    library = open_program(folder, manifest, frozen, threads, providers)
    try:
        frozen.check(library)
        artifact = Artifact(folder, manifest, library, frozen)
        artifact.state.read_initial()
    except BaseException:
        library.close()
        raise
    if owns_folder:
        weakref.finalize(artifact, shutil.rmtree, folder, ignore_errors=True)
    return artifact


class Artifact:
    """A compiled model with its weights. Made by `load`; a context manager that closes it.

    Attributes:
        path: Its folder.
        manifest: What is known about it.
        state: Its tensors.
    """

    def __init__(
        self, path: Path, manifest: Manifest, library: Program, frozen: FrozenFile
    ) -> None:
        """Wrap an open library; `load` is the way to get one."""
        self.path = path
        self.manifest = manifest
        self.state = State(library, manifest, path / STATE_FILE, frozen)
        self._library = library
        self._diverged = False
        self._close = weakref.finalize(self, library.close)

    def __enter__(self) -> Artifact:
        """Return the artifact itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give its memory back. Nothing can be run afterwards; closing twice does nothing."""
        self._close()

    def _open_library(self) -> Program:
        if not self._library.is_open:
            what = f"the artifact {self.path} is closed"
            raise UserError(Problem("closed", what, fix="open it again: pockc.load"))
        return self._library

    @property
    def step(self) -> int:
        """Training steps taken so far, those before the last save included."""
        return self._open_library().progress()[0]

    @property
    def seed(self) -> int:
        """The seed from which every step derives its own, as for dropout."""
        return self._open_library().progress()[1]

    @seed.setter
    def seed(self, value: int) -> None:
        """Set the seed of the steps to come."""
        self._open_library().set_progress(self.step, value)

    def step_seed(self, step: int, micro_batch: int = 0) -> int:
        """Return the seed that a step, counted from 1, hands to its kernels."""
        return self._open_library().step_seed(step, micro_batch)

    @property
    def diverged(self) -> bool:
        """Whether the last step made the state NaN or infinite; `load_state` ends that."""
        return self._diverged

    @property
    def memory(self) -> Memory:
        """What the open artifact takes."""
        return self._open_library().memory

    @property
    def threads(self) -> int:
        """Threads that run kernels, the caller's included."""
        return self._open_library().threads

    @property
    def batch_rows(self) -> int:
        """Rows of one training step."""
        return self.manifest.batch_rows

    def entry_spec(self, name: str) -> EntrySpec:
        """Return what an entry point takes and gives.

        Raises:
            UserError: [no-entry] The artifact has none of that name.
        """
        spec = self.manifest.entries.get(name)
        if spec is None:
            what = f"the artifact has no entry point '{name}'"
            fix = f"choose from: {', '.join(sorted(self.manifest.entries))}"
            raise UserError(Problem("no-entry", what, fix=fix))
        return spec

    @property
    def train_inputs(self) -> tuple[InputSpec, ...]:
        """The inputs of `train_step`, micro-batches taken together; the last is the target."""
        parts = self.manifest.micro_batches
        return tuple(_times(s, parts) for s in self.entry_spec("train_step").inputs)

    def train_step(self, *batch: object, lr: float | None = None) -> float:
        """Take one step and return its loss, from before the update.

        Args:
            batch: The model's inputs, then the target.
            lr: The learning rate; None is the one that the artifact was compiled with.

        Raises:
            UserError: [nonfinite-loss]; or the batch does not fit.
        """
        library = self._open_library()
        specs = self.train_inputs
        arrays = check_inputs("train_step", specs, batch)
        parts = self.manifest.micro_batches
        if parts > 1:
            arrays = [
                a if s.batched else np.concatenate([a.reshape(-1)] * parts)
                for s, a in zip(specs, arrays, strict=True)
            ]
        rate = self.manifest.learning_rate if lr is None else lr
        loss, finite = library.train_step(rate, arrays)
        if not finite:
            # With micro-batches the update was not applied.
            self._diverged = parts == 1
            raise UserError(self._nonfinite(loss, rate))
        return loss

    def _nonfinite(self, loss: float, lr: float) -> Problem:
        step = self.step + 1
        return Problem(
            "nonfinite-loss",
            f"the loss of step {step} is {loss}, with learning rate {lr:g}",
            fix="lower the learning rate or clip gradients, check the data for NaN, and go on "
            "from the last checkpoint: load_state",
        )

    def run(self, name: str, *inputs: object) -> dict[str, Array]:
        """Run an entry once, with exactly its shapes; return its outputs by name."""
        spec = self.entry_spec(name)
        return self._run_checked(name, check_inputs(name, spec.inputs, inputs))

    def _run_checked(self, name: str, arrays: list[Array]) -> dict[str, Array]:
        library = self._open_library()
        entry: Entry = library.entries[name]
        outputs = empty_outputs(entry)
        library.run(entry, arrays, outputs)
        named = zip(entry.outputs, outputs, strict=True)
        return {t.name: array_from(a, t.element) for t, a in named}

    def run_rows(self, name: str, *inputs: object) -> dict[str, Array]:
        """Run an entry on any number of rows: padded where few, split where many.

        Every output must have a row for each row of the batch.

        Raises:
            UserError: [partial-batch] The entry's outputs are not by row, and the rows are not
                those of one call.
        """
        spec = self.entry_spec(name)
        arrays = check_inputs(name, spec.inputs, inputs, any_rows=True)
        rows, call_rows = row_count(spec.inputs, arrays), call_rows_of(spec)
        if rows == call_rows:
            return self._run_checked(name, arrays)
        # The loss of the whole call says nothing about some of its rows.
        by_row = [o for o in spec.outputs if o.role != "loss"]
        if rows == 0 or not by_row or not all(o.batched for o in by_row):
            what = f"{name} has a result for {call_rows} rows together and got {rows} rows"
            fix = f"give batches of {call_rows} rows"
            raise UserError(Problem("partial-batch", what, fix=fix))
        found = []
        for begin in range(0, rows, call_rows):
            end = min(begin + call_rows, rows)
            part = padded(spec.inputs, sliced(spec.inputs, arrays, begin, end), call_rows)
            outputs = self._run_checked(name, [np.ascontiguousarray(a) for a in part])
            found.append({o.name: outputs[o.name][: end - begin] for o in by_row})
        return {n: np.concatenate([f[n] for f in found]) for n in found[0]}

    def predict(self, *inputs: object) -> Array | tuple[Array, ...]:
        """Return the model's output, or a tuple if it has several, for any number of rows."""
        outputs = tuple(self.run_rows("predict", *inputs).values())
        return outputs[0] if len(outputs) == 1 else outputs

    def evaluate(self, batches: Batches) -> dict[str, float]:
        """Return `loss`, for classification `accuracy`, and `samples` over batches or arrays.

        Args:
            batches: Batches of inputs and target; or one tuple, or dict by input name, of
                arrays of any number of rows. Every row counts once.
        """
        return evaluate(self, batches)

    def train(
        self,
        data: Batches,
        options: TrainOptions | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> History:
        """Train on batches or arrays.

        Args:
            data: As for `evaluate`.
            options: All settings; or give single ones of `TrainOptions` by name.
            settings: As `epochs=3, lr=1e-3, schedule="cosine"`.
        """
        return train(self, data, options or TrainOptions(**settings))

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of all of the model's tensors, tied ones under each name.

        `torch.from_numpy` of each gives what `load_state_dict(strict=True)` takes.
        """
        self._open_library()
        specs = self.manifest.tensors
        own = {n: self.state.array(n) for n, s in specs.items() if s.in_state_dict}
        return own | {a: own[n] for a, n in self.manifest.aliases.items() if n in own}

    def load_state(self, source: str | Path | Mapping[str, Any]) -> None:
        """Take weights from a checkpoint file or from a dict of arrays.

        A checkpoint brings the optimizer and the step count with it; a dict begins anew.

        Raises:
            UserError: [state-mismatch], [folded-tensor], [damaged-tensors], [no-checkpoint].
        """
        self._open_library()
        if isinstance(source, str | Path):
            path = Path(source)
            if not path.is_file():
                what = f"there is no checkpoint {path}"
                raise UserError(Problem("no-checkpoint", what, fix="check the path"))
            self.state.read_checkpoint(path)
        else:
            self.state.set_arrays({n: np.asarray(a) for n, a in source.items()})
        self._diverged = False

    def save_checkpoint(
        self, path: str | Path, keep_previous: bool = True, *, full: bool = True
    ) -> None:
        """Write all tensors to a safetensors file, which PyTorch reads as it is.

        The file is replaced at once and only when it is complete; the one before is kept as
        `<path>.previous`.

        Args:
            path: The file.
            keep_previous: Keep the one before.
            full: Write frozen tensors too. Without them PyTorch reads the file with
                `strict=False`, and only this artifact can go on from it.

        Raises:
            UserError: [nonfinite-state], [write-failed].
        """
        self._check_finite()
        small = not full and not self._library.frozen_changed
        completed_by = self.manifest.files[FROZEN_FILE].sha256 if small else None
        with replaced_file(Path(path), keep_previous) as file:
            self.state.write(file, completed_by)

    def _check_finite(self) -> None:
        found = self._open_library().nonfinite_tensor()
        if found is not None or self._diverged:
            name = "the loss" if found is None else f"'{found.name}'"
            what = f"the state is not saved: {name} is NaN or infinite"
            fix = "go on from the last good checkpoint: load_state"
            raise UserError(Problem("nonfinite-state", what, fix=fix))

    def save(self, path: str | Path) -> None:
        """Write the artifact with its present weights to a folder, replacing an older one.

        Raises:
            UserError: [foreign-folder] There is something else; [nonfinite-state],
                [write-failed].
        """
        self._check_finite()
        target = Path(path)
        check_replaceable(target)
        with replaced_folder(target) as folder:
            changed = [STATE_FILE, *([FROZEN_FILE] if self._library.frozen_changed else [])]
            for name in sorted(set(self.manifest.files) - set(changed)):
                _take(self.path / name, folder / name, same=_is_same(target, self.path))
            manifest = self.manifest
            if FROZEN_FILE in changed:
                with (folder / FROZEN_FILE).open("wb") as file:
                    write_frozen(file, self.state.frozen.rewritten(self._library))
                manifest = _with_file(manifest, folder / FROZEN_FILE)
            with (folder / STATE_FILE).open("wb") as file:
                self.state.write(file, manifest.files[FROZEN_FILE].sha256)
            manifest = _with_file(manifest, folder / STATE_FILE)
            (folder / MANIFEST_FILE).write_text(manifest_text(manifest), encoding="utf-8")
        if _is_same(target, self.path):
            self._saved_as(manifest)

    def _saved_as(self, manifest: Manifest) -> None:
        """Go on with the files that replaced the artifact's own."""
        self.manifest = manifest
        frozen = FrozenFile.open(self.path / FROZEN_FILE)
        self.state = State(self._library, manifest, self.path / STATE_FILE, frozen)


def call_rows_of(spec: EntrySpec) -> int:
    """Return the rows of one call of an entry; 1 if none of its inputs is batched."""
    return next((s.shape[0] for s in spec.inputs if s.batched and s.shape), 1)


def _times(spec: InputSpec, parts: int) -> InputSpec:
    if parts == 1 or not spec.batched or not spec.shape:
        return spec
    shape = (spec.shape[0] * parts, *spec.shape[1:])
    return InputSpec(spec.name, spec.dtype, shape, spec.batched, spec.values)


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _take(source: Path, target: Path, *, same: bool) -> None:
    """Copy a file; where the copy replaces it, give it a second name instead if that goes."""
    if same:
        # Some file systems, as on many memory cards, have no hard links.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy(source, target)  # with its mode: an artifact also holds programs


def _with_file(manifest: Manifest, path: Path) -> Manifest:
    file = FileSpec(sha256_of(path), path.stat().st_size)
    return replace(manifest, files=dict(manifest.files) | {path.name: file})
