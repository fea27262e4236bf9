"""The evaluation model: one graph with the loss first and the model's outputs after it."""

from __future__ import annotations

from pockc.ir.graph import Graph, Output
from pockc.ir.roles import Loss, Metric
from pockc.passes.rewriting import Rewriter, inline


def with_loss(evaluate: Graph, predict: Graph) -> Graph:
    """Return what `evaluate` and `predict` compute; the loss of rows becomes one of the batch.

    What both compute is there twice: the runtime finds that when it loads the model.
    """
    rewriter = Rewriter(evaluate)
    for node in evaluate.nodes:
        rewriter.keep(node)
    loss = evaluate.output_of(Loss())
    if loss is not None:
        value = loss.value
    else:
        total, weight = (
            rewriter.emit("reduce_sum", o.value, axes=(0,), keepdims=False)
            for name in ("loss_rows", "weight_rows")
            if (o := evaluate.output_of(Metric(name))) is not None
        )
        value = rewriter.emit("div", total, weight)
    names = {i.name: rewriter.input_of(i.role) or rewriter.add_input(i) for i in predict.inputs}
    shown = inline(rewriter, predict, names)
    outputs = [Output(shown[o.value], o.role) for o in predict.outputs]
    return rewriter.finish([Output(value, Loss()), *outputs]).replace(name="eval_model")
