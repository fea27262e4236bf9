"""Who is measured: which process runs it, in which environment, with which settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / ".bench"
"""Environments, weights and artifacts; git ignores it."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "tensorflow": ("tensorflow-cpu",),
    # The last release of it; a later onnx writes files that it does not read.
    "onnxruntime": ("onnxruntime-training==1.19.2", "onnx==1.17.0"),
}
"""Environments beside the one that runs the benchmark, and what pip installs into them."""

# Without this PyTorch gives the memory of every large tensor back to the system and asks for it
# again, page by page: up to twice the time.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


class Unavailable(Exception):  # noqa: N818  it is no error: the peer is left out
    """A peer cannot be measured here; says why."""


@dataclass(frozen=True)
class Peer:
    """Something that takes training steps.

    Attributes:
        name: As given to `--peers`.
        title: For the table.
        module: The module of `tests.bench.workers` that it runs.
        environment: A key of `PACKAGES`, or empty for the benchmark's own environment.
        options: For the module.
        variables: Environment variables.
        any_net: Whether it runs every net, or only those of `tests.bench.layers`.
    """

    name: str
    title: str
    module: str
    environment: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    any_net: bool = True


_LAST = {"channels_last": True, "compile": False}
PEERS: dict[str, Peer] = {
    p.name: p
    for p in (
        Peer("pockc", "pockc", "pockc_runtime", options={"backend": "tvm"}),
        Peer(
            "pockc-onnx",
            "pockc's backend onnx in a stock ONNX Runtime",
            "pockc_runtime",
            options={"backend": "onnx"},
        ),
        Peer("torch", "PyTorch eager", "pytorch", options={**_LAST, "channels_last": False}),
        Peer(
            "torch-tuned",
            "PyTorch eager, channels last, tuned malloc",
            "pytorch",
            options=_LAST,
            variables=_KEEP_MEMORY,
        ),
        Peer(
            "torch-compile",
            "torch.compile, channels last, tuned malloc",
            "pytorch",
            options={**_LAST, "compile": True},
            variables=_KEEP_MEMORY,
        ),
        Peer("tensorflow", "TensorFlow", "tensorflow_graph", "tensorflow", any_net=False),
        Peer("ort", "ONNX Runtime training", "onnx_runtime", "onnxruntime", any_net=False),
    )
}
OURS, OURS_ONNX, TRAINED_BY_ORT = "pockc", "pockc-onnx", "ort"


def interpreter(
    environment: str, given: Mapping[str, str], report: Callable[[str], None]
) -> Path:
    """Return the Python of an environment, which is made if there is none.

    Args:
        environment: A key of `PACKAGES`, or empty.
        given: Interpreters that exist already, by environment.
        report: Told what is installed.

    Raises:
        Unavailable: pip did not install it.
    """
    if not environment:
        return Path(sys.executable)
    named = given.get(environment) or os.environ.get(f"POCKC_BENCH_{environment.upper()}")
    if named:
        if not Path(named).is_file():
            raise Unavailable(f"there is no interpreter {named}")
        return Path(named)
    folder = SCRATCH / environment
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        report(f"install {', '.join(PACKAGES[environment])} into {folder}")
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = ("-m", "pip", "install", "-q", "--disable-pip-version-check")
        _run(str(python), *pip, *PACKAGES[environment])
        done.touch()
    return python


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Unavailable(f"`{' '.join(command[1:])}` failed: {last_words(ended.stderr)}")


def last_words(text: str) -> str:
    """Return the last line that begins a message: lines that go on are indented."""
    lines = [x for x in text.splitlines() if x.strip() and not x[0].isspace()]
    return lines[-1] if lines else "without a message"
