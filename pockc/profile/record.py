"""Runs and records training steps of an artifact here, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pockc.backends.native import COMMAND
from pockc.errors import Problem, UserError
from pockc.profile.recording import Recording, read_recording
from pockc.runtime.manifest import ONNX
from pockc.runtime.opening import check_machine, read_manifest

VERB = "bench"
"""Of `pock-run`: takes steps on random data and leaves the weights as they are."""


def record(folder: Path, steps: int, threads: int | None) -> Recording:
    """Return what this machine takes for training steps on random data.

    Args:
        folder: The artifact; nothing of it is changed.
        steps: Recorded steps, behind the first one.
        threads: Threads that run kernels; None is one per processor.

    Raises:
        UserError: The artifact is for another machine, or has no such program; [run] it failed.
    """
    with tempfile.TemporaryDirectory(prefix="pockc-profile-") as name:
        path = Path(name) / "recording.json"
        if read_manifest(folder).program == ONNX:
            what = "recording by ONNX Runtime"
            words = [str(folder), str(steps), str(threads or 0), str(path)]
            command = [sys.executable, "-m", "pockc.profile.onnx_steps", *words]
        else:
            what = f"{COMMAND} {VERB}"
            words = record_words(str(path), steps, threads)
            command = [str(program_here(folder)), VERB, str(folder), *words]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            what = f"{what} ended with status {done.returncode}"
            raise UserError(Problem("run", what, fix="what it said is above"))
        return read_recording(path)


def record_words(path: str, steps: int, threads: int | None) -> list[str]:
    """Return the options with which `pock-run bench` records steps to a file."""
    words = ["--steps", str(steps), "--profile", path, "--json"]
    return words + ([] if threads is None else ["--threads", str(threads)])


def program_here(folder: Path) -> Path:
    """Return the artifact's own `pock-run`, for this machine.

    Raises:
        UserError: [artifact-target] It is for another machine; [no-program].
    """
    check_machine(folder, read_manifest(folder).machine)
    program = (folder / COMMAND).resolve()
    if not program.is_file():
        what = f"{folder} has no {COMMAND}"
        raise UserError(Problem("no-program", what, fix="compile the model again"))
    return program
