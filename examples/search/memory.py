"""Compile schemes, train with each, and put the counted memory beside what the process took.

    python memory.py text.py=full text.py=last:2 digits.py=bias ../sensor/model.py=full

Prints a table in MiB. `counted` is what `--memory-budget` compares: state, arena, and at most
what the runtime takes. `pock-run` is private memory of the whole process that trains without
Python; `python` is what this process's grew by, for the same steps in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from neighbours import load

from pockc import runtime

measuring = load("text", "finetune")
MIB = 1 << 20
STEPS = 12


def random_rows(path: Path, steps: int) -> dict[str, np.ndarray]:
    """Return random data for so many steps of an artifact."""
    rng = np.random.default_rng(0)
    manifest, data = runtime.read_manifest(path), {}
    parts = manifest.micro_batches
    for spec in manifest.entries["train_step"].inputs:
        shape = (spec.shape[0] * parts * steps, *spec.shape[1:]) if spec.batched else spec.shape
        if spec.dtype.startswith("f"):
            data[spec.name] = rng.random(shape, np.float32)
        else:
            high = 1 if spec.values is None else spec.values.high
            data[spec.name] = rng.integers(0, high + 1, shape)
    return data


def by_pock_run(path: Path, data: Path, threads: int) -> int:
    """Return the private bytes of `pock-run train`."""
    done = subprocess.run(
        [path / "pock-run", "train", path, "--data", data, "--threads", str(threads),
         "--lr", "0", "--epochs", "2", "--no-save", "--log-json"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return int(json.loads(done.stdout.splitlines()[-1])["private_bytes"])


def by_python(path: Path, threads: int) -> int:
    """Return what the private memory of this process grows by."""
    data = random_rows(path, STEPS)
    before = measuring.memory_bytes("RssAnon")
    with runtime.load(path, threads) as artifact:
        artifact.train(data, runtime.TrainOptions(epochs=2, lr=0.0))
        return int(measuring.grown(before, measuring.memory_bytes("RssAnon")) or 0)


def row(model: str, how: list[str], threads: int) -> str:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory(prefix="pockc-") as folder:
        path, data = Path(folder) / "model.pock", Path(folder) / "data.npz"
        compiled = [sys.executable, "-m", "pockc.cli", "compile", model, *how]
        subprocess.run(
            [*compiled, "--threads", str(threads), "-o", path],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        np.savez(data, **random_rows(path, STEPS))
        memory = runtime.read_manifest(path).memory
        outside = by_pock_run(path, data, threads)
        inside = subprocess.run(
            [sys.executable, __file__, "--inside", path, "--threads", str(threads)],
            stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
    parts = [memory[f"{n}_bytes"] for n in ("state", "arena", "runtime")]
    figures = (*parts, sum(parts), outside, int(inside))
    return " | ".join(f"{n / MIB:.2f}" for n in figures)


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("schemes", nargs="*", help="MODEL=PRESET or MODEL=CONFIG.yaml")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside is not None:
        sys.stdout.write(str(by_python(chosen.inside, chosen.threads)))
        return
    print("| model, scheme | state | arena | runtime | counted | pock-run | python |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for scheme in chosen.schemes:
        model, _, what = scheme.partition("=")
        option = "--sparse-update" if what.endswith(".yaml") else "--preset"
        print(f"| {scheme} | {row(model, [option, what], chosen.threads)} |", flush=True)


if __name__ == "__main__":
    main()
