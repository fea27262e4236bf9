"""Compute at compile time what depends on frozen tensors only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pockc.ir import Graph
from pockc.ir.verify import Invariant


@dataclass(frozen=True, slots=True)
class FoldFrozen:
    """Evaluate subgraphs of frozen tensors, and fold frozen batch norm into convolutions."""

    values: Mapping[str, np.ndarray] = field(repr=False, compare=False)
    held: frozenset[str] = frozenset()
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph."""
        return graph
