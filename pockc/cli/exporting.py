"""Takes the weights home: reads an artifact's files, whatever machine it is for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pockc.cli.onnx_export import SPLIT_BYTES, compared, write_model
from pockc.cli.places import check_file_target
from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_NAME, raw_from
from pockc.runtime.frozen import FrozenFile
from pockc.runtime.manifest import FROZEN_FILE, STATE_FILE, Manifest
from pockc.runtime.opening import check_files, read_manifest
from pockc.runtime.safetensors import NewTensor, array_chunks, read_all, write

ONNX_SUFFIX = ".onnx"

State = dict[str, np.ndarray]


def state_of(folder: Path) -> tuple[State, Manifest]:
    """Return all of the model's tensors under all of their names, and the manifest.

    Raises:
        UserError: It is no artifact, or a file is damaged.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    own = {
        name: value
        for name, value in _values(folder, manifest)
        if manifest.tensors[name].in_state_dict
    }
    return own | {alias: own[name] for alias, name in manifest.aliases.items()}, manifest


def _values(folder: Path, manifest: Manifest) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every parameter and buffer."""
    frozen = FrozenFile.open(folder / FROZEN_FILE)
    changed = read_all(folder / STATE_FILE)
    for name, spec in manifest.tensors.items():
        if spec.kind != "opt_state":
            yield name, changed[name] if name in changed else frozen.read(name)


def export(folder: Path, target: Path, split_bytes: int = SPLIT_BYTES) -> str:
    """Write the model's tensors, or an ONNX model, to a file; return what was written.

    Args:
        folder: The artifact.
        target: The file; its ending says the format.
        split_bytes: An ONNX model with more bytes of weights has them in `<target>.data`.

    Raises:
        UserError: [export-format] The file's ending says no known format; [missing-package];
            [export-mismatch] an ONNX model that predicts otherwise than the artifact.
    """
    writers: Mapping[str, Callable[[Path, State, Manifest], None]] = {
        ".safetensors": _safetensors,
        ".npz": _npz,
        ".pt": _torch,
        ".pth": _torch,
    }
    if target.suffix not in (*writers, ONNX_SUFFIX):
        raise UserError(
            Problem(
                "export-format",
                f"cannot tell the format of {target} from its ending",
                fix=f"let it end in {', '.join((*writers, ONNX_SUFFIX))}",
            )
        )
    if target.suffix == ONNX_SUFFIX:
        return _export_model(folder, target, split_bytes)
    state, manifest = state_of(folder)
    check_file_target(target)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix
    )
    os.close(handle)
    try:
        writers[target.suffix](Path(name), state, manifest)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    return f"{len(state)} tensors to {target}"


def _export_model(folder: Path, target: Path, split_bytes: int) -> str:
    """Write an ONNX model and, if it is large, the file of its weights, once they are right.

    A model names the file of its weights, so both are made under their names elsewhere.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_file_target(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as place:
        path = Path(place) / target.name
        files = write_model(path, folder, dict(_values(folder, manifest)), split_bytes)
        note = compared(path, folder, manifest)
        for file in files:
            file.replace(target.parent / file.name)
    return f"{target}, which is {note}"


def _safetensors(path: Path, state: State, manifest: Manifest) -> None:
    def tensor(name: str, value: np.ndarray) -> NewTensor:
        spec = manifest.tensors[manifest.aliases.get(name, name)]
        element = BY_NAME[spec.dtype]
        return NewTensor(name, element, value.shape, array_chunks(raw_from(value, element)))

    with path.open("wb") as file:
        write(file, (tensor(n, v) for n, v in sorted(state.items())), {"format": "pt"})


def _npz(path: Path, state: State, manifest: Manifest) -> None:  # noqa: ARG001
    arrays: dict[str, Any] = dict(state)
    np.savez(path, **arrays)


def _torch(path: Path, state: State, manifest: Manifest) -> None:  # noqa: ARG001
    try:
        import torch
    except ImportError:
        fix = "pip install torch, or export to .safetensors, which PyTorch reads as well"
        raise UserError(
            Problem("missing-package", "a .pt file needs PyTorch", fix=fix)
        ) from None
    torch.save({n: torch.from_numpy(v.copy()) for n, v in state.items()}, path)
