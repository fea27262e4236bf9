"""The example inputs of a model at another batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pockc.frontend.loading import UserModel


def with_batch(user: UserModel, rows: int) -> UserModel:
    """Return a model whose example inputs have so many rows, repeated or cut."""
    given = user.example_inputs
    values = list(given.values()) if isinstance(given, Mapping) else list(given)
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    old = next((t.shape[0] for t in tensors if t.dim()), None)

    def resized(value: Any) -> Any:  # noqa: ANN401  an input may be anything
        batched = isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == old
        return _rows(value, rows) if batched else value

    target = user.target_example
    if isinstance(target, tuple | list):
        target = [resized(t) for t in target]
    elif target is not None:
        target = resized(target)
    inputs: Any = (
        {k: resized(v) for k, v in given.items()}
        if isinstance(given, Mapping)
        else tuple(map(resized, given))
    )
    return replace(user, example_inputs=inputs, target_example=target)


def _rows(tensor: Tensor, rows: int) -> Tensor:
    return tensor[torch.arange(rows) % tensor.shape[0]].clone()
