"""Say what a backend does not know in ops that it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pockc import ops
from pockc.ir import Attrs, AttrValue, Graph, Source
from pockc.ir.verify import Invariant
from pockc.passes.rewriting import Rewriter


@dataclass(frozen=True, slots=True)
class Decompose:
    """Replace each op that is not `native` and has a decomposition by that.

    What has none is left: the backend reports all of it at once, with the user's lines.
    """

    native: frozenset[str]
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph in native ops."""
        rewriter = Rewriter(graph)
        for old in graph.nodes:
            node = rewriter.here(old)
            decompose = ops.get(node.op).decompose
            if node.op in self.native or decompose is None:
                rewriter.append(node)
                continue
            emit = _Emitter(rewriter, node.source)
            value = decompose(emit, *node.inputs, **node.attrs)
            rewriter.replace(node.name, value)
        made = rewriter.finish()
        # A decomposition may use ops that must be decomposed themselves.
        return made if made is graph else replace(self)(made)


@dataclass(frozen=True, slots=True)
class _Emitter:
    rewriter: Rewriter
    source: Source | None

    def __call__(self, op: str, *inputs: str, **attrs: AttrValue) -> str:
        return self.rewriter.add(op, inputs, Attrs(attrs), self.source)
