"""Numbers as people read them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pockc.units import milliseconds, size

__all__ = ["amount", "count", "figures", "milliseconds", "percent", "size", "sparkline"]

_BARS = " ▁▂▃▄▅▆▇█"


def count(number: int) -> str:
    """Return a number with three digits and K, M or G, as `12.3 M`."""
    value = float(number)
    for unit in ("", " K", " M", " G"):
        if abs(value) < 1000:
            return f"{number}" if not unit else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"


def amount(number: int, unit: str) -> str:
    """Return a figure in its unit."""
    return size(number) if unit == "bytes" else count(number)


def percent(share: float) -> str:
    """Return a share, as `12.3 %`."""
    return f"{100 * share:.3g} %"


def figures(values: dict[str, float]) -> str:
    """Return results of an evaluation in one line."""
    order = sorted(values, key=lambda k: (k == "samples", k != "loss", k))
    return ", ".join(
        f"{k} {values[k]:.0f}" if k == "samples" else f"{k} {values[k]:.4f}" for k in order
    )


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return a curve from 0 to its maximum in one line of at most `width` characters."""
    if not values:
        return ""
    edges = [len(values) * i // width for i in range(width + 1)]
    parts = [values[a : max(a + 1, b)] for a, b in itertools.pairwise(edges)]
    if len(values) < width:
        parts = [[v] for v in values]
    top = max(values) or 1
    return "".join(_BARS[round(max(p) / top * (len(_BARS) - 1))] for p in parts)
