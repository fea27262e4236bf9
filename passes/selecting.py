"""Some channels of a tensor: an axis and the indices along it."""

from __future__ import annotations

import numpy as np

from pockc.ir import Source
from pockc.passes.rewriting import Rewriter

Selection = tuple[int, tuple[int, ...]]
"""The axis, and the indices along it in increasing order."""


def as_range(indices: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return (start, stop, step) if the indices are evenly spaced, else None."""
    if not indices:
        return 0, 0, 1
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    even = indices == tuple(indices[0] + i * step for i in range(len(indices)))
    return (indices[0], indices[-1] + 1, step) if even and step >= 1 else None


def emit_selection(
    rewriter: Rewriter, value: str, selection: Selection, source: Source | None = None
) -> str:
    """Add the node that selects channels of a value: a slice if it can be, else a take."""
    axis, indices = selection
    shape = rewriter.type_of(value).shape
    if indices == tuple(range(shape[axis])):
        return value
    found = as_range(indices)
    if found is None:
        index = rewriter.literal(np.array(indices, np.int64), "indices")
        return rewriter.emit("take", value, index, axis=axis, source=source)
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], stops[axis], steps[axis] = found
    return rewriter.emit(
        "slice",
        value,
        source=source,
        starts=tuple(starts),
        stops=tuple(stops),
        steps=tuple(steps),
    )
