"""Where the logits, the loss and the predictions are in what a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pockc.errors import Problem, UserError
from pockc.frontend.choices import LOSSES


def first_tensor(outputs: Any) -> Tensor:  # noqa: ANN401
    """Return the logits of a model's output, or the first tensor in it."""
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if isinstance(outputs, Mapping) else None
    found = getattr(outputs, "logits", found)
    if isinstance(found, Tensor):
        return found
    tensors = [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, Tensor)]
    if not tensors:
        raise UserError(
            Problem(
                "loss-output",
                f"the model returns no tensor but {type(outputs).__name__}",
                fix="return the logits, or give a loss function that takes what it returns",
            )
        )
    return tensors[0]


def model_loss(outputs: Any, *_: Tensor) -> Tensor:  # noqa: ANN401
    """Return the loss that a model computes itself.

    Raises:
        UserError: [loss-output] There is no scalar where one is looked for.
    """
    found = outputs.get("loss") if isinstance(outputs, Mapping) else None
    found = getattr(outputs, "loss", found)
    if found is None:
        found = outputs[0] if isinstance(outputs, (tuple, list)) and outputs else outputs
    if isinstance(found, Tensor) and found.numel() == 1 and found.is_floating_point():
        return found.reshape(())
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    raise UserError(
        Problem(
            "loss-output",
            f"the model is to return its loss, a scalar, but returns {shape}",
            fix="return the loss as .loss, as ['loss'] or first, or choose a loss: "
            + ", ".join(n for n in LOSSES if n != "model"),
        )
    )


def without_loss(outputs: Any) -> Any:  # noqa: ANN401
    """Return what a model that returns its loss returns besides it."""
    if isinstance(outputs, Mapping):
        return {k: v for k, v in outputs.items() if k != "loss"}
    if isinstance(outputs, (tuple, list)):
        return tuple(outputs[1:])
    return ()


def predictions(outputs: Any, *, has_loss: bool) -> list[Tensor]:  # noqa: ANN401
    """Return the tensors that a prediction consists of: the logits, or all but the loss."""
    if isinstance(outputs, Mapping) and isinstance(outputs.get("logits"), Tensor):
        return [outputs["logits"]]
    rest = without_loss(outputs) if has_loss else outputs
    return [t for t in torch.utils._pytree.tree_leaves(rest) if isinstance(t, Tensor)]
