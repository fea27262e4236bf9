"""Fine-tune one artifact on part of the training texts, as a device would.

Needs numpy and pockc.runtime, neither PyTorch nor TVM. Prints one JSON line of figures.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from pockc import runtime

PROCESS = Path("/proc/self")


def memory_bytes(field: str) -> int | None:
    """Return a figure of this process, as VmHWM, None where there is no /proc."""
    with suppress(OSError):
        found = re.search(rf"{field}:\s*(\d+) kB", (PROCESS / "status").read_text("ascii"))
        return int(found[1]) * 1024 if found else None
    return None


def grown(before: int | None, after: int | None) -> int | None:
    """Return the difference of two figures, None if one is unknown."""
    return None if before is None or after is None else after - before


def arrays(path: Path, rows: int) -> dict[str, np.ndarray]:
    """Return the first rows of every array of a file; the rows are in random order."""
    with np.load(path) as file:
        return {name: file[name][:rows].copy() for name in file.files}


def say(text: str) -> None:
    """Show progress; standard output is for the result."""
    sys.stderr.write(f"   {text}\n")
    sys.stderr.flush()


def finetune(path: Path, data: Path, steps: int, texts: int) -> dict[str, float | None]:
    """Return accuracies, time and memory of a run of so many steps."""
    rows = runtime.read_manifest(path).batch_rows
    test = arrays(data / "test.npz", texts)
    train = arrays(data / "train.npz", steps * rows)
    # Earlier peaks, of reading the data, are none of the artifact's.
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5", "ascii")
    before = {field: memory_bytes(field) for field in ("VmRSS", "RssAnon")}
    with runtime.load(path) as artifact:
        untrained = artifact.evaluate(test)["accuracy"]
        say(f"before: accuracy {untrained:.3f} on {texts} texts")
        step_ms: list[float] = []

        def report(step: runtime.StepReport) -> None:
            step_ms.append(step.step_ms)
            if step.step % 20 == 0:
                say(f"step {step.step:3d} of {steps}: loss {step.loss:.3f}, "
                    f"{step.step_ms:.0f} ms")  # fmt: skip

        artifact.train(train, epochs=1, on_step=report)
        trained = artifact.evaluate(test)["accuracy"]
        say(f"after: accuracy {trained:.3f}")
        # What was allocated is touched by now, and stays until the artifact is closed.
        private, peak = memory_bytes("RssAnon"), memory_bytes("VmHWM")
        memory = artifact.memory
        artifact.save(path)
    return {
        "before": untrained,
        "after": trained,
        "step_ms": statistics.median(step_ms),
        "planned_bytes": memory.total_bytes,
        "measured_bytes": grown(before["RssAnon"], private),
        "frozen_bytes": memory.frozen_bytes,
        "peak_bytes": grown(before["VmRSS"], peak),
    }


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "cache")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--texts", type=int, default=600)
    chosen = parser.parse_args()
    started = time.monotonic()
    figures = finetune(chosen.artifact, chosen.data, chosen.steps, chosen.texts)
    print(json.dumps({**figures, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
