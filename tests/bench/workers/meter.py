"""What every measured process does: read the case, take steps when told, tell time and memory.

Imports no framework and nothing of pockc, so that it runs in anyone's environment. A process
gets its job as JSON in its argument and reads turns as JSON lines from its input; it answers
with JSON lines. Between turns it waits and does nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Meter:
    """The measuring side of a process.

    Attributes:
        folder: Where the case's files are.
        options: What the job says besides.
        trained: Names of the trained parameters.
        workload: As `tests.bench.cases.Workload`.
        learning_rate: Of SGD.
    """

    def __init__(self) -> None:
        """Read the job. Call it before anything heavy is imported."""
        self.options: dict[str, Any] = json.loads(sys.argv[1])
        self.threads: int = self.options["threads"]
        self.folder = Path(self.options["folder"])
        case = json.loads((self.folder / "case.json").read_text(encoding="utf-8"))
        self.trained: list[str] = case["trained"]
        self.workload: dict[str, Any] = case["workload"]
        self.learning_rate: float = case["learning_rate"]
        # Frameworks write what they like to standard output; answers go to a copy of it.
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._base_bytes = 0

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Yield every parameter and buffer, one at a time in memory."""
        with np.load(self.folder / "weights.npz") as stored:
            for name in stored.files:
                yield name, stored[name]

    def batch(self) -> tuple[Array, Array]:
        """Return inputs and labels."""
        with np.load(self.folder / "batch.npz") as stored:
            return stored["inputs"], stored["labels"]

    def imported(self) -> None:
        """Note that the framework is imported: from here on memory counts."""
        self._base_bytes = status_bytes("VmRSS")

    def serve(self, step: Callable[[], float], version: str, **facts: object) -> None:
        """Take the first step, then as many as every turn asks for.

        Args:
            step: Takes one step to its end and returns the loss from before the update.
            version: Of the framework.
            facts: Further figures, for the answer to the first step.
        """
        loss = float(step())
        ready = {
            "loss": loss,
            "first_step_s": time.time() - _started(),
            "version": version,
            "base_bytes": self._base_bytes,
            **facts,
        }
        self._answer(ready)
        for line in sys.stdin:
            asked = json.loads(line)
            if asked == "sizes":
                self._answer({"runtime_bytes": runtime_bytes()})
            else:
                self._answer(self._turn(step, **asked))

    def _turn(
        self, step: Callable[[], float], seconds: float, least: int, most: int
    ) -> dict[str, object]:
        """Warm up with one step; time from `least` to `most` steps, as `seconds` allow."""
        step()
        before = status_bytes("VmHWM")
        forget_peak()
        taken: list[float] = []
        loss, began = 0.0, time.perf_counter()
        while len(taken) < most and (
            len(taken) < least or time.perf_counter() - began < seconds
        ):
            at = time.perf_counter()
            loss = float(step())
            taken.append(1e3 * (time.perf_counter() - at))
        return {
            "ms": taken,
            "loss": loss,
            "peak_bytes": status_bytes("VmHWM") - self._base_bytes,
            "peak_before_bytes": before - self._base_bytes,
        }

    def _answer(self, data: object) -> None:
        self._answers.write(json.dumps(data) + "\n")
        self._answers.flush()


def status_bytes(key: str) -> int:
    """Return an entry of `/proc/self/status` in bytes, as VmRSS or VmHWM."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.M)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Make VmHWM begin again at the present VmRSS."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _started() -> float:
    """Return when this process was created, in seconds since the epoch."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - (up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def runtime_bytes() -> int:
    """Return the size on disk of the packages that this process has imported.

    A package counts as a whole, with the libraries that its wheel brings beside it. The
    interpreter and the standard library do not count.
    """
    roots = [Path(p).resolve() for p in sys.path if p.endswith("-packages")]
    tops: set[Path] = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        for root in roots:
            if file and Path(file).resolve().is_relative_to(root):
                tops.add(root / Path(file).resolve().relative_to(root).parts[0])
    tops |= {t.with_name(t.name + ".libs") for t in tops}
    tops |= _without_installation()
    files = (f for t in tops for f in ([t] if t.is_file() else t.rglob("*")))
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc")


def _without_installation() -> set[Path]:
    """Return the loaded files of pockc, which may run from its sources."""
    found = set()
    for name, module in sys.modules.items():
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] == "pockc" and "-packages" not in file:
            found.add(Path(file))
    return found
