"""Bytes and times as people read them; messages of every stage use them."""

from __future__ import annotations


def size(nbytes: int) -> str:
    """Return bytes with three digits and a unit, as `1.42 MiB`."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{nbytes} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB" if value < 1000 else f"{value:.0f} GiB"


def milliseconds(value: float) -> str:
    """Return a time with three digits, as `12.3 ms`."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
