"""Fine-tune one artifact from several seeds, as a device would, and print one line of JSON.

Each seed draws other rows from the pool and another order of them. The memory is that of this
process alone: it has neither PyTorch nor TVM in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from neighbours import load

from pockc import runtime

measuring = load("text", "finetune")


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def drawn(pool: dict[str, np.ndarray], rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return so many rows of a pool, others for each seed."""
    count = len(next(iter(pool.values())))
    chosen = np.random.default_rng(seed).permutation(count)[:rows]
    return {k: v[chosen] for k, v in pool.items()}


def one_seed(
    path: Path,
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray],
    epochs: int,
    seed: int,
) -> dict[str, float]:
    """Return accuracy, memory and time of one run."""
    before = measuring.memory_bytes("RssAnon")
    with runtime.load(path) as artifact:
        options = runtime.TrainOptions(epochs=epochs, seed=seed, schedule="linear")
        history = artifact.train(train, options)
        # What a step allocates is touched by now, and stays until the artifact is closed.
        measured = measuring.grown(before, measuring.memory_bytes("RssAnon"))
        memory = artifact.memory
        found = artifact.evaluate(test)
    return {
        "accuracy": found["accuracy"],
        "loss": found["loss"],
        "planned_bytes": memory.state_bytes + memory.arena_bytes,
        "measured_bytes": measured,
        "step_ms": statistics.median(e.step_ms for e in history.epochs),
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
    pool, test = arrays(chosen.pool), arrays(chosen.test)
    runs = []
    for seed in range(1, chosen.seeds + 1):
        train = drawn(pool, chosen.rows, seed)
        runs.append(one_seed(chosen.artifact, train, test, chosen.epochs, seed))
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
