"""Keep of a block of the model only what goes into it, and compute the rest again in backward.

Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, §3: what the forward pass
makes inside of a segment is dropped, and made once more from the segment's input when the
backward pass gets there. Which segments that is worth for is not decided here: a configuration
names them, and `pockc plan --fit` chooses them by what their kernels cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc.ir import Graph, Node
from pockc.ir.phases import ancestors, forward_end, renewed
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter


@dataclass(frozen=True, slots=True)
class RecomputeBlocks:
    """Repeat the forward pass of some modules where their backward pass begins.

        %h = matmul(%x, %w)     in fc            %h = matmul(%x, %w)
        %y = tanh(%h)           in fc            %y = tanh(%h)
        ...                                ->    ...
        %dh = tanh_gradient(%h, %dy)             %h2 = matmul(%x, %w)
                                                 %dh = tanh_gradient(%h2, %dy)

    What a module's nodes make is read by the backward pass from the repeated nodes. What other
    nodes of the forward pass read too, as a block's result, is kept.

    Attributes:
        modules: Their qualified names; none of them lies in another.
    """

    modules: tuple[str, ...]
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with the modules' nodes repeated."""
        turn = forward_end(graph)
        if turn is None:
            return graph
        late = ancestors(graph, renewed(graph))
        forward = [n for i, n in enumerate(graph.nodes) if i <= turn or n.name not in late]
        inside = _inner_values(graph, forward, self.modules)
        if not inside:
            return graph
        rewriter = Rewriter(graph)
        again: dict[str, str] = {}
        for at, node in enumerate(graph.nodes):
            if at <= turn or node.name not in late:
                rewriter.append(node)
                continue
            for value in node.inputs:
                _repeat(rewriter, value, inside, again)
            inputs = tuple(again.get(i, i) for i in node.inputs)
            rewriter.append(replace(node, inputs=inputs) if again else node)
        if not again:
            return graph
        log.debug("recompute_blocks: %d nodes again for %s", len(again), self.modules)
        return EliminateDead()(rewriter.finish())


def _inner_values(
    graph: Graph, forward: Iterable[Node], modules: Iterable[str]
) -> Mapping[str, Node]:
    """Return the nodes of the forward pass whose results are made again, by name.

    A node that a pass has added knows no module: it belongs to that of its last operand. The
    forward pass includes what backward does not build on, as the sum that makes the loss: what
    that reads of a block is there, and need not be made again.
    """
    owner: dict[str, str | None] = {}
    forward = list(forward)
    for node in forward:
        module = node.source.module if node.source else ""
        if module:
            found = next((m for m in modules if f"{module}.".startswith(f"{m}.")), None)
        else:
            known = [owner[i] for i in node.inputs if i in owner]
            found = known[-1] if known else None
        owner[node.name] = found
    crossing = {
        i for n in forward for i in n.inputs if i in owner and owner[i] != owner[n.name]
    } | graph.output_values
    return {n.name: n for n in forward if owner[n.name] is not None and n.name not in crossing}


def _repeat(
    rewriter: Rewriter, value: str, inside: Mapping[str, Node], again: dict[str, str]
) -> None:
    """Add the nodes that make an inner value once more, if they are not there yet."""
    wanted = [value]
    while wanted:
        node = inside.get(wanted[-1])
        if node is None or node.name in again:
            wanted.pop()
            continue
        missing = [i for i in node.inputs if i in inside and i not in again]
        if missing:
            wanted += missing
            continue
        inputs = tuple(again.get(i, i) for i in node.inputs)
        made = replace(node, name=rewriter.fresh(node.name), inputs=inputs)
        again[node.name] = rewriter.append(made)
        wanted.pop()
