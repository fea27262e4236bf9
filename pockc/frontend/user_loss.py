"""Loss functions that users write: what targets they take, and what they must return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pockc.errors import Problem, UserError
from pockc.frontend.outputs import first_tensor
from pockc.frontend.quiet import quiet


def user_loss(
    function: Callable[..., Any],
    outputs: Any,  # noqa: ANN401
    targets: tuple[Tensor, ...],
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return a loss function that is checked to return a scalar, and example targets.

    Args:
        function: Takes the model's outputs, then the targets.
        outputs: What the model returns, as fake tensors.
        targets: Example targets. If there are none and the function takes one, it is derived
            from the outputs, provided that one kind alone makes the function run.

    Raises:
        UserError: [loss-target] The function takes another number of targets.
    """
    needed = _targets_needed(function)
    if needed == 1 and not targets:
        found = list(_fitting(function, outputs))
        targets = (found[0],) if len(found) == 1 else ()
    if needed is not None and needed != len(targets):
        raise UserError(
            Problem(
                "loss-target",
                f"the loss function {_name(function)} takes {needed} "
                f"{'target' if needed == 1 else 'targets'} after the outputs, {len(targets)} "
                f"{'is' if len(targets) == 1 else 'are'} given",
                fix="give example targets of one batch: target_example=... (example_target in "
                "a model file)",
            )
        )

    def train(outputs: Any, *given: Tensor) -> Tensor:  # noqa: ANN401
        loss = function(outputs, *given)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(
                Problem(
                    "loss-output",
                    f"the loss function must return a scalar, it returns {shape}",
                    fix="take the mean or the sum",
                )
            )
        return loss.reshape(())

    return train, targets


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else type(function).__name__


def _fitting(function: Callable[..., Any], outputs: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """Yield targets that a loss runs with: labels of positions or rows, or like the output."""
    shown = first_tensor(outputs)
    shape = tuple(shown.shape)
    kinds = {(s, torch.int64) for s in (shape[:-1], shape[:1]) if s and s != shape}
    kinds.add((shape, shown.dtype))
    for size, dtype in sorted(kinds, key=str):
        target = torch.zeros(size, dtype=dtype)
        if _runs(function, outputs, shown, target):
            yield target


def _runs(
    function: Callable[..., Any],
    outputs: Any,  # noqa: ANN401
    shown: Tensor,
    target: Tensor,
) -> bool:
    if not isinstance(shown, FakeTensor):
        return False
    mode = shown.fake_mode
    try:
        with quiet(), mode, torch.no_grad():
            loss = function(outputs, mode.from_tensor(target, static_shapes=True))
    except Exception:  # noqa: BLE001  whatever it raises, it does not take this target
        return False
    return isinstance(loss, Tensor) and loss.numel() == 1


def _targets_needed(function: Callable[..., Any]) -> int | None:
    """Return how many arguments a loss requires besides the outputs, None if it may vary."""
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    positional = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return sum(p.default is p.empty for p in positional) - 1
