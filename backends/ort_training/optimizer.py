"""The optimizer model of ONNX Runtime's training API: one operator over sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper

from pockc.backends.base import Job
from pockc.errors import Problem, UserError

_DOMAIN = "com.microsoft"
_SEQUENCES = ("params", "gradients", "first_order_moments", "second_order_moments")


def check_update(job: Job) -> None:
    """Check that the runtime's optimizers can do what is asked for.

    Raises:
        UserError: [ort-training-optimizer] for each thing that they cannot.
    """
    problems = tuple(
        Problem(
            "ort-training-optimizer",
            f"the optimizers of ONNX Runtime's training API have no {what}",
            fix=fix,
        )
        for what, fix in _lacking(job)
    )
    if problems:
        raise UserError(*problems)


def _lacking(job: Job) -> Iterator[tuple[str, str]]:
    instead = "use --backend onnx, or {}"
    name, options = job.optimizer_name, job.optimizer_options
    if name not in ("sgd", "adamw"):
        yield f"optimizer '{name}'", instead.format("sgd or adamw")
    for key in ("momentum", "weight_decay") if name == "sgd" else ():
        if options.get(key):
            yield f"{key} for sgd", instead.format(f"leave {key} out")
    for param, how in job.trained.items():
        if how.selection is not None:
            yield f"channels to choose, as for {param}", instead.format("train it as a whole")
        if how.lr_scale != 1 or how.weight_decay is not None:
            what = f"learning rate or weight decay of a parameter's own, as for {param}"
            yield what, instead.format("leave lr_scale and weight_decay out of the rules")
    if job.micro_batches > 1:
        yield (
            "micro-batches in one step",
            "leave accumulate out, and call the training model several times before a step of "
            "the optimizer: it adds up gradients",
        )


def optimizer_model(name: str, options: Mapping[str, Any], opset: int) -> onnx.ModelProto:
    """Return the model: learning rate, step and sequences in, a flag out."""
    inputs = [
        helper.make_tensor_value_info("learning_rate", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
    ]
    sequences = _SEQUENCES if name == "adamw" else _SEQUENCES[:3]
    inputs += [
        helper.make_tensor_sequence_value_info(s, TensorProto.FLOAT, None) for s in sequences
    ]
    done = "update_completed"
    if name == "adamw":
        first, second = options["betas"]
        node = helper.make_node(
            "AdamWOptimizer",
            ["learning_rate", "step", *sequences],
            [done],
            domain=_DOMAIN,
            alpha=float(first),
            beta=float(second),
            epsilon=float(options["eps"]),
            weight_decay=float(options["weight_decay"]),
            correct_bias=1,
            adam_mode=0,  # as PyTorch: decay first, eps added to the corrected root
        )
    else:
        reads = ["learning_rate", "params", "gradients"]
        node = helper.make_node("SGDOptimizerV2", reads, [done], domain=_DOMAIN)
    output = helper.make_tensor_value_info(done, TensorProto.BOOL, [1])
    graph = helper.make_graph([node], "optimizer", inputs, [output])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)
