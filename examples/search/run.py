"""Fine-tune one artifact from several seeds by `pock-run`, and print one line of JSON.

Each seed draws other rows from the pool and another order of them. The memory is the private
memory of the whole process, as a device has it: there is neither Python nor PyTorch in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pockc import runtime


def drawn(pool: dict[str, np.ndarray], rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return so many rows of a pool, others for each seed."""
    count = len(next(iter(pool.values())))
    chosen = np.random.default_rng(seed).permutation(count)[:rows]
    return {k: v[chosen] for k, v in pool.items()}


def one_seed(
    path: Path, train: Path, test: Path, steps: int, options: list[str]
) -> dict[str, float]:
    """Return accuracy and memory of one run."""
    done = subprocess.run(
        [path / "pock-run", "train", path, "--data", train, "--eval", test, *options,
         "--eval-every", str(steps), "--schedule", "linear", "--threads", "1",
         "--no-save", "--log-json"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = [e for e in events if "accuracy" in e][-1]
    return {
        "accuracy": found["accuracy"],
        "loss": found["loss"],
        "private_bytes": max(e.get("private_bytes", 0) for e in events),
    }


def main() -> None:
    """Read the command line and print the figures of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    with np.load(chosen.pool) as file:
        pool = {name: file[name] for name in file.files}
    manifest = runtime.read_manifest(chosen.artifact)
    counted = sum(manifest.memory[f"{n}_bytes"] for n in ("state", "arena", "runtime"))
    steps = chosen.epochs * (chosen.rows // manifest.batch_rows)
    runs = []
    with TemporaryDirectory(prefix="pockc-") as folder:
        train = Path(folder) / "train.npz"
        for seed in range(1, chosen.seeds + 1):
            np.savez(train, **drawn(pool, chosen.rows, seed))
            options = ["--epochs", str(chosen.epochs), "--seed", str(seed)]
            found = one_seed(chosen.artifact, train, chosen.test, steps, options)
            runs.append({**found, "counted_bytes": counted})
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
