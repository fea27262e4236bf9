"""Add up the gradients of several small batches before an update.

One captured graph, for the rows of a micro-batch, becomes two: `train_step` adds its gradients
to sums that are kept between calls, and `apply_update` makes the update from their mean and
clears them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pockc.ir import Gradient, Graph, Input, OptState, Output, Param, StateUpdate
from pockc.ir.verify import Invariant, update_types
from pockc.passes.rewriting import Rewriter

SLOT = "grad_sum"
"""The slot of the optimizer state that holds a sum of gradients."""


@dataclass(frozen=True, slots=True)
class AccumulateGradients:
    """Replace each gradient by its addition to a sum that is kept.

    output gradient "w" %g      ->      %t = add(%s, %g)
                                        output state_update "grad_sum" "w" %t
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (update_types,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph that accumulates."""
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            rewriter.keep(node)
        outputs = []
        for output in graph.outputs:
            if not isinstance(output.role, Gradient):
                outputs.append(output)
                continue
            param = output.role.param
            tensor = rewriter.type_of(output.value)
            kept = rewriter.add_input(Input(SLOT, tensor, OptState(SLOT, param)))
            total = rewriter.emit("add", kept, output.value, name=f"{SLOT}_new")
            outputs.append(Output(total, StateUpdate(SLOT, param)))
        return rewriter.finish(outputs)


def apply_update_graph(graph: Graph, micro_batches: int, name: str = "apply_update") -> Graph:
    """Return the graph that reads the sums as gradients, and clears them.

    Args:
        graph: The graph before `AccumulateGradients`, with the gradients of what is trained.
        micro_batches: How many gradients are in a sum; the update is made from their mean.
        name: Name of the new graph.
    """
    trained = [o for o in graph.outputs if isinstance(o.role, Gradient)]
    params = {o.role.param for o in trained if isinstance(o.role, Gradient)}
    inputs = tuple(
        i for i in graph.inputs if isinstance(i.role, Param) and i.role.name in params
    )
    rewriter = Rewriter(Graph(name, inputs, (), ()))
    outputs = []
    for output in trained:
        tensor = graph.type_of(output.value)
        param = output.role.param if isinstance(output.role, Gradient) else ""
        kept = rewriter.add_input(Input(SLOT, tensor, OptState(SLOT, param)))
        mean = rewriter.emit("mul", kept, rewriter.scalar(1.0 / micro_batches, tensor.dtype))
        zero = rewriter.emit("full", shape=tensor.shape, value=0.0, dtype=tensor.dtype)
        outputs += [
            Output(mean, Gradient(param)),
            Output(zero, StateUpdate(SLOT, param)),
        ]
    return rewriter.finish(outputs)
