"""The `predict` command: classes of rows, or all that the model returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pockc.cli.console import say
from pockc.cli.data import read_data
from pockc.cli.places import check_file_target
from pockc.runtime import load

SHOWN_CLASSES = 3


def run_predict(
    folder: Path,
    data: Path,
    output: Path | None,
    threads: int | None,
    providers: Sequence[str] | None,
) -> None:
    """Predict all rows of a file and print or write the result."""
    if output is not None:
        check_file_target(output)
    with load(folder, threads, providers=providers) as artifact:
        spec = artifact.entry_spec("predict")
        arrays = read_data(data, spec.inputs, "predict")
        result = artifact.predict(*(arrays[s.name] for s in spec.inputs))
        names = artifact.manifest.class_names
        classifies = "accuracy" in _figures_of(artifact.entry_spec("evaluate").outputs)
    results = result if isinstance(result, tuple) else (result,)
    if output is not None:
        arrays_out: dict[str, Any] = {f"output{i}": r for i, r in enumerate(results)}
        np.savez(output, **arrays_out)
        shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in arrays_out.items())
        say(f"wrote {shapes} to {output}")
    elif classifies and results[0].ndim == 2:
        _print_classes(results[0], names)
    else:
        for number, array in enumerate(results):
            say(f"output{number} {array.dtype}{list(array.shape)}")
            say(np.array2string(array, precision=4, threshold=60))


def _figures_of(outputs: Sequence[object]) -> set[str]:
    names = {getattr(o, "name", "") for o in outputs}
    return {"accuracy"} if "correct_rows" in names else set()


def _print_classes(logits: np.ndarray, names: Sequence[str]) -> None:
    """Print the likeliest classes of each row with their probabilities."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    share = shifted / shifted.sum(axis=1, keepdims=True)
    for row, values in enumerate(share):
        best = np.argsort(-values, kind="stable")[:SHOWN_CLASSES]
        shown = (f"{names[c] if c < len(names) else c} {values[c]:.3f}" for c in best)
        say(f"{row}: {', '.join(shown)}")
