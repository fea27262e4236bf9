"""The bar chart of results: time and memory of everyone, pockc = 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.peers import OURS
from tests.bench.results import CaseResult, Measured, Results


def draw(results: Results, path: Path) -> None:
    """Write the chart as PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    cases = [c for c in results.cases if c.of(OURS) is not None]
    others = [m.peer for c in cases for m in c.peers if m.peer != OURS and not m.failed]
    peers = list(dict.fromkeys(others))
    width = max(6.0, 0.25 * len(cases) * len(peers))
    figure, axes = pyplot.subplots(2, 1, figsize=(width, 8), sharex=True, layout="constrained")
    _bars(axes[0], cases, peers, lambda m: m.median_ms)
    axes[0].set_ylabel("time of a step, pockc = 1")
    axes[0].legend(ncols=3, fontsize="small")
    _bars(axes[1], cases, peers, lambda m: float(m.peak_bytes))
    axes[1].set_ylabel("peak memory, pockc = 1")
    labels = [f"{c.title}\n{c.mode}" for c in cases]
    axes[1].set_xticks(range(len(cases)), labels, rotation=30, ha="right", fontsize="small")
    figure.suptitle(f"{results.date}, {results.machine}, {results.threads} threads", fontsize=9)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(
    axis: Any, cases: list[CaseResult], peers: list[str], value: Callable[[Measured], float]
) -> None:
    """Draw a group of bars per case; logarithmic, so that half and double are as far from 1."""
    bar = 0.8 / max(len(peers), 1)
    for i, peer in enumerate(peers):
        places, heights = [], []
        for at, case in enumerate(cases):
            ours, other = case.of(OURS), case.of(peer)
            if ours is not None and other is not None:
                places.append(at + (i - (len(peers) - 1) / 2) * bar)
                heights.append(value(other) / value(ours))
        axis.bar(places, [h - 1 for h in heights], bar, bottom=1, label=peer)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.axhline(1, color="black", linewidth=2, label="pockc")
    axis.grid(axis="y", alpha=0.3)
