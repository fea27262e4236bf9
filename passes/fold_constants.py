"""Compute at compile time what does not depend on any input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pockc import ops
from pockc.ir import Attrs, Graph, Literal, Node
from pockc.ir.verify import Invariant
from pockc.ops import OpKind
from pockc.ops.base import evaluate
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter

# Recomputing these inside the kernel that reads them costs less than reading a table.
_CHEAP = frozenset({"iota", "full", "cast", "broadcast_to", "reshape", "permute", "neg"})


@dataclass(frozen=True, slots=True)
class FoldConstants:
    """Replace values without variable operands by literals.

        %i = iota() {shape=(4,), axis=0}
        %s = sin(%i)                        ->    %s = literal() {value=...}

    Generators stay: a kernel makes their numbers as it needs them. A value that a cheap
    expression of generators gives (a causal mask) stays too, unless it is tiny. A tensor of one
    number becomes a `full`.

    Attributes:
        limit_bytes: Larger results stay computed, unless they replace literals as large.
        tiny_bytes: Results up to this size are folded even if they are cheap.
    """

    limit_bytes: int = 1 << 20
    tiny_bytes: int = 256
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with constants computed."""
        known: dict[str, np.ndarray] = {}
        cheap: set[str] = set()
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            if not all(i in known for i in node.inputs) or self._too_large(graph, node):
                rewriter.keep(node)
                continue
            known[node.name] = evaluate(node, [known[i] for i in node.inputs])
            if _is_cheap(node) and all(i in cheap for i in node.inputs):
                cheap.add(node.name)
            self._add(rewriter, node, known[node.name], stays=node.name in cheap)
        return EliminateDead()(rewriter.finish())

    def _too_large(self, graph: Graph, node: Node) -> bool:
        given = sum(t.nbytes for t in graph.operand_types(node))
        return node.op != "literal" and node.type.nbytes > max(self.limit_bytes, given)

    def _add(self, rewriter: Rewriter, node: Node, value: np.ndarray, *, stays: bool) -> None:
        if node.op in ("full", "literal"):
            rewriter.keep(node)
            return
        number = _one_number(value)
        if number is not None:
            attrs = Attrs({"shape": node.type.shape, "value": number, "dtype": node.type.dtype})
            made = rewriter.make("full", (), attrs, name=node.name, source=node.source)
        elif (stays and node.type.nbytes > self.tiny_bytes) or node.op == "iota":
            rewriter.keep(node)
            return
        else:
            literal = Attrs({"value": Literal(value)})
            made = rewriter.make("literal", (), literal, name=node.name, source=node.source)
        rewriter.append(made)
        log.debug("fold_constants: %%%s = %s: %s", node.name, node.op, made.op)


def _is_cheap(node: Node) -> bool:
    op = ops.get(node.op)
    return node.op in _CHEAP or (op.kind is OpKind.ELEMENTWISE and op.cheap)


def _one_number(value: np.ndarray) -> float | None:
    """Return the number of which an array consists, None if there are several."""
    if not value.size:
        return None
    first = value.reshape(-1)[0]
    same = np.isnan(value) if first != first else value == first  # noqa: PLR0124  nan
    number: float = first.item()
    return number if bool(np.all(same)) else None
