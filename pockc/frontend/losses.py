"""Loss functions as pure torch functions, with figures per row for evaluation.

A loss of ours gives a loss and a weight for every row; the loss of a batch is sum over sum.
That makes the mean over many batches, the last one padded, exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pockc.errors import Problem, UserError
from pockc.frontend.captured import LabelInfo
from pockc.frontend.choices import LOSSES
from pockc.frontend.options import read
from pockc.frontend.outputs import first_tensor, model_loss
from pockc.frontend.user_loss import user_loss
from pockc.ir import Source

LossSpec = str | Mapping[str, Any] | Callable[..., Any]
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class LossPlan:
    """A loss made ready for a model.

    Attributes:
        name: One of ours, "custom" or "model".
        train: Takes outputs, targets and constants; returns the loss.
        rows: Takes the same; returns the figures per row, None if there are none.
        targets: Example targets for one batch.
        constants: Tensors that every call gets after the targets.
        labels: Which labels are legal.
        source: The line to name in the graph; None for a user's function, whose own lines are.
    """

    name: str
    train: Callable[..., Tensor]
    rows: Callable[..., Rows] | None = None
    targets: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    labels: LabelInfo | None = None
    source: Source | None = field(default=None)


def plan_loss(
    loss: LossSpec | None,
    outputs: Any,  # noqa: ANN401
    target: Tensor | Sequence[Tensor] | None,
) -> LossPlan:
    """Return a loss made ready for a model with such outputs.

    Args:
        loss: A name of ours, a mapping with a name and options, a function of the outputs and
            the targets, "model" or None if the model returns its loss itself.
        outputs: What the model returns, of which only shapes and types are looked at.
        target: Example targets; for a loss of ours they are derived if not given.

    Raises:
        UserError: [unknown-loss], [loss-option], [loss-target], [loss-output].
    """
    given = () if target is None else (target,) if isinstance(target, Tensor) else tuple(target)
    chosen = loss.get("name") if isinstance(loss, Mapping) else loss
    if loss is None or chosen == "model":
        model_loss(outputs)
        return LossPlan("model", model_loss)
    if callable(loss):
        train, targets = user_loss(loss, outputs, given)
        return LossPlan("custom", train, targets=targets)
    if loss == "custom":
        raise UserError(
            Problem("unknown-loss", "loss: 'custom' is no name", fix="give the function itself")
        )
    name, options = read("loss", LOSSES, loss)
    logits = first_tensor(outputs)
    make = _cross_entropy if name == "cross_entropy" else _elementwise
    return make(name, options, logits, given)


def _ours(name: str) -> Source:
    return Source("loss", 1, name)


def _cross_entropy(
    name: str, options: Mapping[str, Any], logits: Tensor, given: tuple[Tensor, ...]
) -> LossPlan:
    target = _one_target(name, given) if given else _labels_like(logits)
    axis = _class_axis(logits, target)
    classes = logits.shape[axis]
    weight = options["weight"]
    if weight is not None and len(weight) != classes:
        raise UserError(
            Problem(
                "loss-option",
                f"loss 'cross_entropy': weight has {len(weight)} numbers, the model has "
                f"{classes} classes",
            )
        )
    constants = () if weight is None else (torch.tensor(weight, dtype=logits.dtype),)
    soft = target.is_floating_point()
    labels = None if soft else LabelInfo(classes, options["ignore_index"])

    def elements(outputs: Any, target: Tensor, *constants: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        x = first_tensor(outputs).movedim(axis, -1)
        if target.is_floating_point():
            return _soft_entropy(x, target.movedim(axis, -1), options, *constants)
        return _entropy(x, target, options, *constants)

    def rows(outputs: Any, target: Tensor, *constants: Tensor) -> Rows:  # noqa: ANN401
        x = first_tensor(outputs)
        best = x.argmax(axis)
        if target.is_floating_point():
            right, counted = best == target.argmax(axis), torch.ones_like(best)
        else:
            counted = target != options["ignore_index"]
            right = (best == target) & counted
        return _figures(elements(outputs, target, *constants), right, counted)

    def train(outputs: Any, target: Tensor, *constants: Tensor) -> Tensor:  # noqa: ANN401
        losses, weights = elements(outputs, target, *constants)
        return losses.sum() / weights.sum()

    return LossPlan(name, train, rows, (target,), constants, labels, _ours(name))


def _entropy(
    x: Tensor, target: Tensor, options: Mapping[str, Any], *weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return loss and weight of every label; classes lie last in x."""
    logp = functional.log_softmax(x, -1)
    hit = target.unsqueeze(-1) == torch.arange(x.shape[-1], dtype=target.dtype)
    counted = (target != options["ignore_index"]).to(x.dtype)
    own = torch.where(hit, logp, 0.0).sum(-1)
    weights = torch.where(hit, weight[0], 0.0).sum(-1) * counted if weight else counted
    losses = -own * weights
    if smoothing := options["label_smoothing"]:
        spread = logp * weight[0] if weight else logp
        rest = -spread.sum(-1) * counted
        losses = losses * (1 - smoothing) + rest * (smoothing / x.shape[-1])
    return losses, weights


def _soft_entropy(
    x: Tensor, target: Tensor, options: Mapping[str, Any], *weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return loss and weight of every row of class probabilities; each row counts one."""
    logp = functional.log_softmax(x, -1)
    smoothing = options["label_smoothing"]
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[-1]
    if weight:
        logp = logp * weight[0]
    losses = -(target * logp).sum(-1)
    return losses, torch.ones_like(losses)


def _figures(
    parts: tuple[Tensor, Tensor], right: Tensor | None = None, counted: Tensor | None = None
) -> Rows:
    """Add up per row. Figures are float32, or float64 for a float64 model."""
    losses, weights = parts
    dtype = torch.promote_types(losses.dtype, torch.float32)
    named = {"loss_rows": losses, "weight_rows": weights}
    if right is not None and counted is not None:
        named |= {"correct_rows": right, "count_rows": counted}
    return {k: _per_row(t.to(dtype)) for k, t in named.items()}


def _per_row(x: Tensor) -> Tensor:
    return x if x.dim() == 1 else x.reshape(x.shape[0], -1).sum(1)


def _labels_like(logits: Tensor) -> Tensor:
    """Return labels for logits: classes last up to three dimensions, second beyond (images)."""
    shape = logits.shape[:-1] if logits.dim() <= 3 else logits.shape[:1] + logits.shape[2:]
    return torch.zeros(tuple(shape), dtype=torch.int64)


def _class_axis(logits: Tensor, target: Tensor) -> int:
    """Return the dimension of the classes, by the shapes of logits and targets.

    Raises:
        UserError: [loss-target] The shapes do not go together.
    """
    shape, have = tuple(logits.shape), tuple(target.shape)
    if target.is_floating_point() and have == shape:
        return 1 if len(shape) > 1 else 0
    last = shape[:-1] == have
    second = len(shape) > 2 and shape[:1] + shape[2:] == have
    integral = not target.is_floating_point() and target.dtype is not torch.bool
    if not integral or not (last or second):
        raise UserError(
            Problem(
                "loss-target",
                f"cross_entropy cannot compare outputs {list(shape)} with targets "
                f"{str(target.dtype).removeprefix('torch.')}{list(have)}",
                fix="give integer targets of the outputs' shape without its class dimension",
            )
        )
    if last and second:
        return len(shape) - 1 if len(shape) == 3 else 1
    return len(shape) - 1 if last else 1


def _one_target(name: str, given: tuple[Tensor, ...]) -> Tensor:
    if len(given) != 1:
        raise UserError(
            Problem("loss-target", f"loss '{name}' takes one target, found {len(given)}")
        )
    return given[0]


def _elementwise(
    name: str, options: Mapping[str, Any], outputs: Tensor, given: tuple[Tensor, ...]
) -> LossPlan:
    target = _one_target(name, given) if given else torch.zeros_like(outputs, device="cpu")
    target = torch.zeros(tuple(target.shape), dtype=target.dtype)
    if tuple(target.shape) != tuple(outputs.shape):
        raise UserError(
            Problem(
                "loss-target",
                f"loss '{name}' compares like with like, found outputs {list(outputs.shape)} "
                f"and targets {list(target.shape)}",
            )
        )
    each = _EACH[name]
    constants: tuple[Tensor, ...] = ()
    if options.get("pos_weight") is not None:
        constants = (torch.tensor(options["pos_weight"], dtype=outputs.dtype),)

    def train(outputs: Any, target: Tensor, *constants: Tensor) -> Tensor:  # noqa: ANN401
        x = first_tensor(outputs)
        return each(x, target.to(x.dtype), options, *constants).mean()

    def rows(outputs: Any, target: Tensor, *constants: Tensor) -> Rows:  # noqa: ANN401
        x = first_tensor(outputs)
        losses = each(x, target.to(x.dtype), options, *constants)
        parts = losses, torch.ones_like(losses)
        if name != "bce_with_logits":
            return _figures(parts)
        return _figures(parts, (x > 0) == (target > 0.5), torch.ones_like(x))

    return LossPlan(name, train, rows, (target,), constants, None, _ours(name))


def _bce(x: Tensor, y: Tensor, _: Mapping[str, Any], *pos_weight: Tensor) -> Tensor:
    soft = functional.softplus(-x)
    if pos_weight:
        soft = soft * ((pos_weight[0] - 1) * y + 1)
    return (1 - y) * x + soft


def _mse(x: Tensor, y: Tensor, _: Mapping[str, Any]) -> Tensor:
    return (x - y).square()


def _l1(x: Tensor, y: Tensor, _: Mapping[str, Any]) -> Tensor:
    return (x - y).abs()


def _huber(x: Tensor, y: Tensor, options: Mapping[str, Any]) -> Tensor:
    return functional.huber_loss(x, y, reduction="none", delta=options["delta"])


def _smooth_l1(x: Tensor, y: Tensor, options: Mapping[str, Any]) -> Tensor:
    return functional.smooth_l1_loss(x, y, reduction="none", beta=options["beta"])


_EACH: dict[str, Callable[..., Tensor]] = {
    "bce_with_logits": _bce,
    "mse": _mse,
    "l1": _l1,
    "huber": _huber,
    "smooth_l1": _smooth_l1,
}
