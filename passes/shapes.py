"""Arithmetic of shapes: what a reshape merges and splits, and how operands broadcast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pockc.ir.views import Shape, reshape_groups

__all__ = [
    "Shape",
    "broadcast_shape",
    "keepdims_shape",
    "merges_only",
    "reshape_groups",
    "size_of",
    "splits_only",
    "stripped",
]


def merges_only(old: Shape, new: Shape) -> bool:
    """Return whether a reshape merges dimensions and splits none."""
    return 0 not in old and all(len(right) == 1 for _, right in reshape_groups(old, new))


def splits_only(old: Shape, new: Shape) -> bool:
    """Return whether a reshape splits dimensions and merges none."""
    return 0 not in old and all(len(left) == 1 for left, _ in reshape_groups(old, new))


def broadcast_shape(shapes: Iterable[Shape]) -> Shape:
    """Return the shape to which operands broadcast; they are known to fit."""
    all_shapes = list(shapes)
    rank = max((len(s) for s in all_shapes), default=0)
    result = [1] * rank
    for shape in all_shapes:
        for d, n in enumerate(shape, rank - len(shape)):
            if n != 1:
                result[d] = n
    return tuple(result)


def stripped(shape: Shape) -> Shape:
    """Return a shape without its leading dimensions of size 1."""
    lead = next((d for d, n in enumerate(shape) if n != 1), len(shape))
    return shape[lead:]


def keepdims_shape(shape: Shape, axes: Sequence[int]) -> Shape:
    """Return the shape of a reduction that keeps its axes as size 1."""
    return tuple(1 if d in axes else n for d, n in enumerate(shape))


def size_of(shape: Shape) -> int:
    """Return the number of elements."""
    return math.prod(shape)
