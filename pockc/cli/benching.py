"""The `bench` command: how long a step takes and what memory it needs, on made-up data."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pockc.cli.console import say, show, table
from pockc.cli.memory import peak_bytes
from pockc.cli.text import milliseconds, size
from pockc.runtime import Artifact, load
from pockc.runtime.dtypes import BY_NAME
from pockc.runtime.manifest import InputSpec


@dataclass(frozen=True, slots=True)
class Times:
    """Times of one entry, in milliseconds.

    Attributes:
        calls: How many were timed.
        median_ms: Half of them took no longer.
        least_ms: The quickest.
        most_ms: The slowest.
    """

    calls: int
    median_ms: float
    least_ms: float
    most_ms: float


def run_bench(folder: Path, steps: int, threads: int | None, json_file: Path | None) -> None:
    """Time the entries of an artifact; its weights stay as they are on disk."""
    with load(folder, threads) as artifact:
        say(f"timing   {folder}: batches of {artifact.batch_rows}, {artifact.threads} threads")
        found = {
            "train_step": _timed(_training(artifact), steps),
            "evaluate": _timed(_running(artifact, "evaluate"), steps),
            "predict": _timed(_running(artifact, "predict"), steps),
        }
        planned = artifact.memory.total_bytes
        rows, used = artifact.batch_rows, artifact.threads
    made = table("", "entry", "median", "least", "most", "rows/s", right=(1, 2, 3, 4))
    for name, times in found.items():
        shown = (times.median_ms, times.least_ms, times.most_ms)
        made.add_row(name, *map(milliseconds, shown), f"{1000 * rows / times.median_ms:.4g}")
    show(made)
    peak = peak_bytes()
    measured = "" if peak is None else f"; the process, Python included, {size(peak)}"
    say(f"memory   {size(planned)} planned{measured}")
    if json_file is not None:
        report = {
            "threads": used,
            "batch_rows": rows,
            "planned_bytes": planned,
            "entries": {name: asdict(times) for name, times in found.items()},
        }
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _training(artifact: Artifact) -> Callable[[], object]:
    batch = random_batch(artifact.train_inputs)
    # Weights that hardly move: a step on noise may diverge, and an infinite loss is an error.
    return lambda: artifact.train_step(*batch, lr=1e-12)


def _running(artifact: Artifact, entry: str) -> Callable[[], object]:
    batch = random_batch(artifact.entry_spec(entry).inputs)
    return lambda: artifact.run(entry, *batch)


def random_batch(specs: Sequence[InputSpec]) -> list[np.ndarray]:
    """Return arrays that the inputs of an entry may be, always the same."""
    rng = np.random.default_rng(0)
    made: list[np.ndarray] = []
    for spec in specs:
        dtype = BY_NAME[spec.dtype].numpy
        if BY_NAME[spec.dtype].kind == "f" or spec.dtype == "bf16":
            values = rng.standard_normal(spec.shape)
            made.append(values.astype(np.float32 if spec.dtype == "bf16" else dtype))
        elif spec.values is None:
            made.append(np.ones(spec.shape, dtype))
        else:
            values = rng.integers(spec.values.low, spec.values.high + 1, spec.shape)
            made.append(values.astype(dtype))
    return made


def _timed(call: Callable[[], object], count: int) -> Times:
    call()  # the first touches every page
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return Times(count, statistics.median(taken), min(taken), max(taken))
