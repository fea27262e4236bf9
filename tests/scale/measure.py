"""Run in a process of its own: load an artifact, train, and tell what memory that took.

    python measure.py ARTIFACT STEPS

Prints JSON: the peak growth of the resident set, and what the runtime says that it allocated.
Nothing but the runtime is imported, as on a device.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

import pockc.runtime
from pockc.runtime.manifest import InputSpec
from pockc.runtime.opening import read_manifest

STATUS = Path("/proc/self/status")


def status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), re.M)
    if found is None:
        raise RuntimeError(f"{STATUS} has no {key}")
    return int(found[1]) * 1024


def batch(spec: InputSpec, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.dtype == "f32":
        return rng.standard_normal(spec.shape, dtype=np.float32)
    return rng.integers(0, 2, spec.shape, dtype=np.int64)


def main(path: Path, steps: int) -> None:
    rng = np.random.default_rng(0)
    # The batch is the caller's: it is there before, and touched before.
    given = [batch(s, rng) for s in read_manifest(path).entries["train_step"].inputs]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before = status_bytes("VmRSS")
    artifact = pockc.runtime.load(path, threads=2)
    for _ in range(steps):
        artifact.train_step(*given, lr=1e-6)
    grown = status_bytes("VmHWM") - before
    used = artifact.memory
    found = {
        "grown": grown,
        "planned": used.total_bytes,
        "state": used.state_bytes,
        "frozen": used.frozen_bytes,
        "arena": used.arena_bytes,
        "runtime": used.runtime_bytes,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
