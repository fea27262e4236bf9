"""From gradients to the models that ONNX Runtime's training API loads.

Its names say what is what: `<parameter>_grad.accumulation.buffer` is where gradients add up,
and `lazy_reset_grad` says that they begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from pockc.backends.base import Job
from pockc.backends.onnx import opsets
from pockc.backends.onnx.model import Draft, draft, finish
from pockc.backends.onnx.weights import write_weights
from pockc.backends.ort_training.checkpoint import checkpoint
from pockc.backends.ort_training.evaluation import with_loss
from pockc.backends.ort_training.optimizer import check_update, optimizer_model
from pockc.errors import Problem, UserError
from pockc.ir.graph import Graph
from pockc.ir.roles import BufferUpdate, Gradient, Loss, Param
from pockc.plan.product import Made, Product
from pockc.plan.types import StateSlot
from pockc.runtime.manifest import ANY, FROZEN_FILE, ORT_TRAINING, Machine

_RESET = "lazy_reset_grad"
_OPSET = 18


def emit(graphs: Mapping[str, Graph], job: Job) -> Product:
    """Write the three models and the checkpoint.

    Raises:
        UserError: [ort-training-optimizer] or [ort-training-buffers]: something is asked for
            that the API cannot do.
    """
    check_update(job)
    train, evaluation = graphs["train_step"], with_loss(graphs["evaluate"], graphs["predict"])
    _check_buffers(train)
    opset = _OPSET if job.opset is None else opsets.choose(job.opset)
    trained = [o.role.param for o in train.outputs if isinstance(o.role, Gradient)]
    keys = frozenset(Param(name) for name in trained)
    drafts = {
        "training_model": draft(_loss_first(train), keys, job.values, opset),
        "eval_model": draft(evaluation, keys, job.values, opset),
    }
    files = {FROZEN_FILE: job.folder / FROZEN_FILE, "checkpoint": job.folder / "checkpoint"}
    places = write_weights(
        files[FROZEN_FILE],
        (d.builder.weights for d in drafts.values()),
        {n: v for n, v in job.values.items() if n not in trained},
    )
    models = {name: finish(d, places, "pockc") for name, d in drafts.items()}
    _accumulate(models["training_model"], drafts["training_model"])
    models["optimizer_model"] = optimizer_model(
        job.optimizer_name, job.optimizer_options, opset
    )
    files["checkpoint"].write_bytes(checkpoint({n: job.values[n] for n in trained}))
    for name, model in models.items():
        files[f"{name}.onnx"] = job.folder / f"{name}.onnx"
        files[f"{name}.onnx"].write_bytes(model.SerializeToString(deterministic=True))
    state = tuple(StateSlot(i.role, i.type, 0) for i in train.inputs if i.role in keys)
    counted = {"train_step": "training_model", "evaluate": "eval_model"}
    return Product(
        program=ORT_TRAINING,
        files=files,
        machine=Machine("ort-training", ANY, ANY),
        state=state,
        entries=tuple(
            Made(
                name,
                [(i.role, i.type) for i in graphs[name].inputs],
                [(o.role, graphs[name].type_of(o.value)) for o in graphs[name].outputs],
                len(models[model].graph.node),
            )
            for name, model in counted.items()
        ),
        memory={
            "state_bytes": sum(h.type.nbytes for h in state),
            "frozen_bytes": 0,
            "arena_bytes": 0,
        },
    )


def _check_buffers(train: Graph) -> None:
    updated = [o.role.name for o in train.outputs if isinstance(o.role, BufferUpdate)]
    if updated:
        what = f"ONNX Runtime's training API keeps no buffers, as {updated[0]}"
        fix = "compile with batch_norm: frozen, or use --backend onnx"
        raise UserError(Problem("ort-training-buffers", what, fix=fix))


def _loss_first(graph: Graph) -> Graph:
    """Return the graph with its loss as the first output, where the API looks for it."""
    first = [o for o in graph.outputs if isinstance(o.role, Loss)]
    return graph.replace(outputs=(*first, *(o for o in graph.outputs if o not in first)))


def _accumulate(model: onnx.ModelProto, drafted: Draft) -> None:
    """Put every gradient into a sum that the runtime keeps."""
    graph = model.graph
    given = {o.name: o for o in graph.output}
    graph.ClearField("output")
    buffers, totals = [], []
    for name, role in drafted.outputs:
        if not isinstance(role, Gradient):
            graph.output.append(given[name])
            continue
        base = f"{role.param}_grad"
        buffer, total = f"{base}.accumulation.buffer", f"{base}.accumulation.out"
        shape = [d.dim_value for d in given[name].type.tensor_type.shape.dim]
        buffers.append(helper.make_tensor_value_info(buffer, TensorProto.FLOAT, shape))
        totals.append(helper.make_tensor_value_info(total, TensorProto.BOOL, [1]))
        graph.node.append(
            helper.make_node(
                "InPlaceAccumulatorV2",
                [buffer, name, _RESET],
                [total],
                name=f"backward/{base}",
                domain="com.microsoft",
            )
        )
    graph.input.extend([*buffers, helper.make_tensor_value_info(_RESET, TensorProto.BOOL, [1])])
    graph.output.extend(totals)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
