"""Loss and accuracy over a data set, every row counted once.

The entry `evaluate` gives numbers per row, so that a batch can be padded and the padding left
out of the sums. Sums are in float64.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.data import Batches, in_sequence
from pockc.runtime.dtypes import Array
from pockc.runtime.manifest import EntrySpec

# numerator and denominator, rows of each
_RATIOS = {"loss": ("loss_rows", "weight_rows"), "accuracy": ("correct_rows", "count_rows")}


class _Runs(Protocol):
    def entry_spec(self, name: str) -> EntrySpec: ...

    def run_rows(self, name: str, *inputs: object) -> dict[str, Array]: ...


def evaluate(artifact: _Runs, data: Batches) -> dict[str, float]:
    """Return loss, accuracy if the model classifies, and the number of samples.

    Raises:
        UserError: [no-data] There is not one row.
    """
    spec = artifact.entry_spec("evaluate")
    rows = next((s.shape[0] for s in spec.inputs if s.batched and s.shape), 1)
    batched = next((i for i, s in enumerate(spec.inputs) if s.batched), None)
    sums: dict[str, float] = {}
    samples = 0
    for batch in in_sequence(spec.inputs, data, rows):
        outputs = artifact.run_rows("evaluate", *batch)
        count = 1 if batched is None else len(batch[batched])
        samples += count
        for name, values in outputs.items():
            # A number for the batch as a whole counts as often as the batch has rows.
            value = float(np.sum(values, dtype=np.float64)) * (1 if values.ndim else count)
            sums[name] = sums.get(name, 0.0) + value
    if samples == 0:
        raise UserError(Problem("no-data", "there is no row to evaluate", fix="give some data"))
    return _figures(sums, samples) | {"samples": samples}


def _figures(sums: dict[str, float], samples: int) -> dict[str, float]:
    used = {name for pair in _RATIOS.values() for name in pair}
    figures = {name: total / samples for name, total in sums.items() if name not in used}
    for name, (top, bottom) in _RATIOS.items():
        if top in sums:
            figures[name] = sums[top] / sums[bottom] if sums[bottom] else float("nan")
    return figures
