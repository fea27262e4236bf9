"""The trade of memory for contribution, as a picture and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pockc.runtime.files import replaced_file
from pockc.search.evolve import Found
from pockc.search.space import Space

MIB = 1 << 20


def write_csv(front: Sequence[Found], chosen: Found, space: Space, path: Path) -> None:
    """Write the schemes that nothing beats, the chosen one marked."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("memory_bytes", "step_ms", "contribution", "chosen", "scheme"))
    for found in _with(front, chosen):
        cost = found.cost
        marked = int(found.genes == chosen.genes)
        row = (cost.memory_bytes, f"{cost.step_ms:.4f}", f"{found.contribution:.6f}", marked)
        writer.writerow((*row, space.describe(found.genes)))
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())


def write_png(
    front: Sequence[Found], chosen: Found, budget_bytes: int | None, path: Path
) -> None:
    """Draw contribution over memory, the chosen scheme and the budget marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = _with(front, chosen)
    axes.step(
        [f.cost.memory_bytes / MIB for f in shown],
        [f.contribution for f in shown],
        where="post",
        marker=".",
    )
    axes.plot(
        [chosen.cost.memory_bytes / MIB], [chosen.contribution], "o", ms=9, label="chosen"
    )
    if budget_bytes is not None:
        axes.axvline(budget_bytes / MIB, ls="--", color="grey", label="budget")
    axes.set_xlabel("planned memory of a training step (MiB)")
    axes.set_ylabel("sum of contributions")
    axes.legend()
    with replaced_file(path) as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})


def _with(front: Sequence[Found], chosen: Found) -> list[Found]:
    found = {f.genes: f for f in (*front, chosen)}
    return sorted(found.values(), key=lambda f: f.cost.memory_bytes)
