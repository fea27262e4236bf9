"""From a PyTorch model and a loss to three graphs.

The model is exported twice, as in training and as in evaluation; each forward pass is traced
into one flat ATen graph, the first together with the loss and its gradients for *all*
parameters, so that one capture serves every way of choosing what to train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal as OneOf

import numpy as np
import torch
from torch import Tensor, fx, nn

from pockc.errors import Problem, UserError
from pockc.frontend import facts
from pockc.frontend.captured import Captured, InputSpec
from pockc.frontend.dtypes import dtype_of, tensor_type, to_numpy
from pockc.frontend.export import Forward, export_forward
from pockc.frontend.importer import import_graph
from pockc.frontend.losses import LossPlan, LossSpec, plan_loss
from pockc.frontend.outputs import predictions
from pockc.frontend.quiet import collector_paused
from pockc.frontend.trace import Key, Request, Traced, trace
from pockc.ir import (
    Batch,
    Buffer,
    BufferUpdate,
    Gradient,
    Graph,
    InputRole,
    Loss,
    Metric,
    OutputRole,
    Param,
    Prediction,
    TensorType,
)

BatchNorm = OneOf["frozen", "update"]
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class _Job:
    """What every step of a capture looks at."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    canonical: Mapping[str, str]
    update_batch_norm: bool
    micro_batches: int

    @property
    def tensors(self) -> list[Tensor]:
        return [t for t in (*self.args, *self.kwargs.values()) if isinstance(t, Tensor)]

    @property
    def rows(self) -> int:
        """Rows of one batch: the first dimension of the first input that has one."""
        return next((t.shape[0] for t in self.tensors if t.dim()), 1)

    def part(self, value: Any) -> Any:  # noqa: ANN401
        """Return the rows of a micro-batch of an input."""
        if not isinstance(value, Tensor) or not self.has_rows(value.shape):
            return value
        return value[: self.rows // self.micro_batches]

    def has_rows(self, shape: Sequence[int]) -> bool:
        return bool(shape) and shape[0] == self.rows


@collector_paused()
def capture(  # noqa: PLR0913  the options of one call; all but two have a default
    model: nn.Module,
    example_inputs: Inputs,
    loss: LossSpec | None = "cross_entropy",
    *,
    micro_batches: int = 1,
    batch_norm: BatchNorm = "frozen",
    target_example: Tensor | Sequence[Tensor] | None = None,
    class_names: Sequence[str] | None = None,
) -> Captured:
    """Return a model traced with its loss.

    Args:
        model: Any module whose operations are covered; it is not changed.
        example_inputs: One batch: a tensor, a tuple of positional arguments or a mapping of
            named ones. Only shapes and types matter.
        loss: A name of ours, a mapping with a name and options, a function of the model's
            outputs and the targets, or "model" if the model returns its loss.
        micro_batches: Into how many parts a batch is split for training.
        batch_norm: "frozen" keeps running statistics and uses them; "update" normalises by
            the batch and updates them, as torch does in train().
        target_example: Targets for one batch, of which shape and type matter. Losses of ours
            derive them from the outputs if they are not given.
        class_names: Passed on.

    Raises:
        UserError: See the slugs of `export`, `losses` and `importer`; [example-inputs] and
            [micro-batches] for what is given here.
    """
    job = _job(model, example_inputs, micro_batches, batch_norm)
    evaluation = _export(job, training=False)
    plan = plan_loss(loss, _outputs(evaluation.program), target_example)
    training = _export(job, training=True) if _may_differ(job, evaluation) else evaluation
    if _is_one(job, training, evaluation):
        step = forward = trace(_request(job, training.program, plan, step=True, shown=True))
    else:
        step = trace(_request(job, training.program, plan, step=True, shown=False))
        forward = trace(_request(job, evaluation.program, plan, step=False, shown=True))
    targets = _target_names(plan)
    rows = "loss" if plan.rows is None else "metric"
    train = _import("train", step, targets, ("loss", "gradient", "buffer"))
    evaluate = _import("evaluate", forward, targets, (rows,))
    predict = _import("predict", forward, targets, ("prediction",))
    used = _without_unused(predict) if plan.name == "model" else predict
    return Captured(
        train=train,
        evaluate=evaluate,
        predict=used,
        values=_values(model, job.canonical),
        aliases={k: v for k, v in job.canonical.items() if k != v},
        state_names=tuple(model.state_dict()),
        parameters=facts.parameters(model, train, evaluate, job.canonical),
        modules=facts.modules(model),
        inputs=_input_specs(job, forward),
        targets=tuple(
            InputSpec(n, tensor_type(t), job.has_rows(t.shape))
            for n, t in zip(targets, plan.targets, strict=True)
        ),
        loss=plan.name,
        labels=plan.labels,
        micro_batches=micro_batches,
        class_names=None if class_names is None else tuple(class_names),
    )


def _job(model: nn.Module, given: Inputs, micro_batches: int, batch_norm: BatchNorm) -> _Job:
    if batch_norm not in ("frozen", "update"):
        raise UserError(
            Problem(
                "batch-norm-option",
                f"batch_norm is {batch_norm!r}",
                fix="choose from: frozen, update",
            )
        )
    kwargs = dict(given) if isinstance(given, Mapping) else {}
    args: tuple[Any, ...] = ()
    if isinstance(given, Tensor):
        args = (given,)
    elif not kwargs:
        args = tuple(given)
    canonical = facts.canonical_names(model)
    job = _Job(model, args, kwargs, canonical, batch_norm == "update", micro_batches)
    problems = list(_input_problems(job))
    if not problems and (micro_batches < 1 or job.rows % micro_batches):
        problems.append(
            Problem(
                "micro-batches",
                f"a batch of {job.rows} rows cannot be split into {micro_batches} equal parts",
                fix="choose a number that divides the batch",
            )
        )
    if problems:
        raise UserError(*problems)
    return job


def _input_problems(job: _Job) -> list[Problem]:
    named = {**{str(i): a for i, a in enumerate(job.args)}, **job.kwargs}
    if not job.tensors:
        return [
            Problem(
                "example-inputs",
                "example_inputs holds no tensor",
                fix="give one batch: a tensor, a tuple of tensors or a mapping of named ones",
            )
        ]
    elsewhere = sorted({str(t.device) for t in job.tensors + _state(job.model)} - {"cpu"})
    if elsewhere:
        return [
            Problem(
                "example-inputs",
                f"the model or its inputs are on {', '.join(elsewhere)}",
                fix="move them: model.cpu(), and tensor.cpu() for every input",
            )
        ]
    return [
        Problem(
            "example-inputs",
            f"example_inputs[{name}] has the unsupported element type {value.dtype}",
        )
        for name, value in named.items()
        if isinstance(value, Tensor) and dtype_of(value.dtype) is None
    ]


def _state(model: nn.Module) -> list[Tensor]:
    return list(facts.named_tensors(model).values())


def _outputs(program: torch.export.ExportedProgram) -> Any:  # noqa: ANN401
    """Return the structure that the model returns, filled with fake tensors."""
    (node,) = (n for n in program.graph.nodes if n.op == "output")
    kinds = program.graph_signature.output_specs
    leaves = [
        a.meta["val"] if isinstance(a, fx.Node) else a
        for a, spec in zip(node.args[0], kinds, strict=True)
        if spec.kind is torch.export.graph_signature.OutputKind.USER_OUTPUT
    ]
    spec = program.call_spec.out_spec
    return torch.utils._pytree.tree_unflatten(leaves, spec)


def _export(job: _Job, *, training: bool) -> Forward:
    """Return the forward pass; that of the step has the rows of a micro-batch."""
    return export_forward(
        job.model,
        tuple(job.part(a) for a in job.args) if training else job.args,
        {k: job.part(v) for k, v in job.kwargs.items()} if training else job.kwargs,
        training=training,
        update_batch_norm=job.update_batch_norm,
    )


def _may_differ(job: _Job, evaluation: Forward) -> bool:
    return evaluation.asks_for_mode or job.micro_batches > 1


def _is_one(job: _Job, training: Forward, evaluation: Forward) -> bool:
    """Whether one trace serves the step and evaluation: it saves tracing forward twice."""
    if job.micro_batches > 1 or training.acts_in_training:
        return False
    return training.is_same(evaluation)


def _request(
    job: _Job,
    program: torch.export.ExportedProgram,
    plan: LossPlan,
    *,
    step: bool,
    shown: bool,
) -> Request:
    """Return what to trace: the loss with gradients, and what evaluation shows."""

    def results(outputs: Any, *given: Tensor) -> dict[Key, Tensor]:  # noqa: ANN401
        found: dict[Key, Tensor] = {}
        if step or plan.rows is None:
            found["loss", ""] = plan.train(outputs, *given)
        if shown:
            tensors = predictions(outputs, has_loss=plan.name == "model")
            found |= {("prediction", str(i)): t for i, t in enumerate(tensors)}
            rows = plan.rows(outputs, *given) if plan.rows else {}
            found |= {("metric", name): t for name, t in rows.items()}
        return found

    return Request(
        program,
        loss=results,
        canonical=job.canonical,
        loss_source=plan.source,
        extras=tuple(job.part(t) if step else t for t in plan.targets) + plan.constants,
        training=step,
        update_batch_norm=job.update_batch_norm,
    )


def _target_names(plan: LossPlan) -> tuple[str, ...]:
    if len(plan.targets) == 1:
        return ("target",)
    return tuple(f"target_{i}" for i in range(len(plan.targets)))


_ROLES: Mapping[str, Callable[[str], InputRole]] = {
    "parameter": Param,
    "buffer": Buffer,
    "input": Batch,
}
_OUTPUTS: Mapping[str, Callable[[str], OutputRole]] = {
    "loss": lambda _: Loss(),
    "gradient": Gradient,
    "buffer": BufferUpdate,
    "metric": Metric,
    "prediction": Prediction,
}


def _import(
    name: str,
    traced: Traced,
    targets: Sequence[str],
    kinds: Sequence[str],
) -> Graph:
    """Return the graph of the results of some kinds."""
    placeholders = [n for n in traced.module.graph.nodes if n.op == "placeholder"]
    given: dict[fx.Node, tuple[InputRole, TensorType] | np.ndarray] = {}
    for node, place in zip(placeholders, traced.places, strict=False):
        if place.kind == "constant":
            given[node] = to_numpy(traced.constants[place.name])
        elif dtype_of(place.value.dtype) is not None:
            given[node] = _ROLES[place.kind](place.name), tensor_type(place.value)
    extras = placeholders[len(traced.places) :]
    for i, node in enumerate(extras):
        if i < len(targets):
            given[node] = Batch(targets[i]), tensor_type(node.meta["val"])
        else:
            given[node] = to_numpy(traced.extras[i])
    outputs: list[tuple[OutputRole, int]] = [
        (_OUTPUTS[key[0]](key[1]), at)
        for at, key in enumerate(traced.results)
        if key[0] in kinds
    ]
    return import_graph(name, traced.module, given, outputs, traced.source_of)


def _without_unused(graph: Graph) -> Graph:
    """Drop inputs that nothing reads: labels, when the model that takes them predicts."""
    read = {i for n in graph.nodes for i in n.inputs} | graph.output_values
    return graph.replace(inputs=tuple(i for i in graph.inputs if i.name in read))


def _values(model: nn.Module, canonical: Mapping[str, str]) -> dict[str, np.ndarray]:
    named = facts.named_tensors(model)
    return {
        name: to_numpy(tensor)
        for name, tensor in named.items()
        if canonical[name] == name and dtype_of(tensor.dtype) is not None
    }


def _input_specs(job: _Job, traced: Traced) -> tuple[InputSpec, ...]:
    return tuple(
        InputSpec(p.name, tensor_type(p.value), job.has_rows(tuple(p.value.shape)))
        for p in traced.places
        if p.kind == "input"
    )
