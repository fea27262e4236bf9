"""Objects of kernels kept between runs, each a file named by everything that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from pockc.backends.base import Kernel
from pockc.backends.tvm.targets import Target


@lru_cache(maxsize=1)
def version() -> str:
    """Return a hash of the kernel generator's own source, and of TVM's version."""
    import tvm

    sha = hashlib.sha256(str(tvm.__version__).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def folder() -> Path:
    """Return where objects are kept: `$POCKC_CACHE`, or `~/.cache/pockc`."""
    chosen = os.environ.get("POCKC_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "pockc"


def key(kernel: Kernel, target: Target) -> str:
    """Return the name under which a kernel is kept."""
    parts = (
        *(version(), target.key, str(kernel.threads), str(kernel.schedule)),
        *(kernel.symbol, kernel.text),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_workspaces(name: str) -> tuple[int, ...] | None:
    """Return the workspaces of a kept kernel, None if it is not there."""
    path = folder() / name[:2] / f"{name}.json"
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_object(name: str) -> bytes | None:
    """Return the object of a kept kernel, None if it is not there."""
    try:
        return (folder() / name[:2] / f"{name}.o").read_bytes()
    except OSError:
        return None


def write(name: str, workspace_bytes: tuple[int, ...], code: bytes) -> None:
    """Keep a kernel; files appear whole or not at all. An unwritable folder is no error."""
    place = folder() / name[:2]
    try:
        place.mkdir(parents=True, exist_ok=True)
        _put(place / f"{name}.o", code)
    except OSError:
        return
    write_workspaces(name, workspace_bytes)


def write_workspaces(name: str, workspace_bytes: tuple[int, ...]) -> None:
    """Keep what a plan must know of a kernel that was not built."""
    place = folder() / name[:2]
    try:
        place.mkdir(parents=True, exist_ok=True)
        _put(place / f"{name}.json", json.dumps(list(workspace_bytes)).encode())
    except OSError:
        return


def _put(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)
