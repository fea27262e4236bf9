"""Scale all gradients together so that their norm stays below a bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pockc.ir import Gradient, Graph
from pockc.ir.verify import Invariant
from pockc.passes.rewriting import Rewriter

# As torch.nn.utils.clip_grad_norm_ has it.
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class ClipGradients:
    """Multiply each gradient by min(1, max_norm / (norm + 1e-6)).

        output gradient "w" %g        %n = sqrt(sum of the squares of all gradients)
                                ->    %c = min(1, max_norm / (%n + 1e-6))
                                      output gradient "w" %g * %c

    The norm is the Euclidean norm of all gradients of the graph as one vector, as in
    `torch.nn.utils.clip_grad_norm_`; what is frozen does not count.
    """

    max_norm: float
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with clipped gradients."""
        gradients = [o.value for o in graph.outputs if isinstance(o.role, Gradient)]
        if not gradients:
            return graph
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            rewriter.keep(node)
        factor = self._factor(rewriter, gradients)
        clipped = {
            g: rewriter.emit("mul", g, factor, name=f"{g}_clipped")
            for g in dict.fromkeys(gradients)
        }
        outputs = (
            replace(o, value=clipped[o.value]) if isinstance(o.role, Gradient) else o
            for o in graph.outputs
        )
        return rewriter.finish(outputs)

    def _factor(self, r: Rewriter, gradients: list[str]) -> str:
        dtype = r.type_of(gradients[0]).dtype
        total = None
        for g in gradients:
            axes = tuple(range(r.type_of(g).rank))
            square = r.emit("reduce_sum", r.emit("mul", g, g), axes=axes, keepdims=False)
            total = square if total is None else r.emit("add", total, square)
        norm = r.emit("add", r.emit("sqrt", total or ""), r.scalar(EPSILON, dtype))
        quotient = r.emit("div", r.scalar(self.max_norm, dtype), norm)
        return r.emit("minimum", quotient, r.scalar(1.0, dtype), name="clip")
