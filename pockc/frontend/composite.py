"""Replacements for composite operations whose own decomposition does not suit us.

They run while the forward pass is traced, so that their gradients are traced too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pockc.frontend.plain import PLAIN

aten = torch.ops.aten


def _dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """One mask that forward and backward share."""
    if not train or p == 0.0:
        return x
    return cast(Tensor, aten.native_dropout.default(x, p, True)[0])


def _feature_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Drop whole channels of (N, C, ...)."""
    if not train or p == 0.0:
        return x
    ones = torch.ones((*x.shape[:2], *(1,) * (x.dim() - 2)), dtype=x.dtype)
    return x * _dropout(ones, p, True)


def _batch_norm(  # noqa: PLR0913, PLR0917  the operator's own signature
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,  # noqa: ARG001
) -> Tensor:
    """The overloads that say what they write, and that autograd knows as one operation."""
    if mean is None or var is None:
        out = aten._native_batch_norm_legit.no_stats(x, weight, bias, True, momentum, eps)
    elif training:
        out = aten._native_batch_norm_legit.default(
            x, weight, bias, mean, var, True, momentum, eps
        )
    else:
        out = aten.native_batch_norm.default(x, weight, bias, mean, var, False, momentum, eps)
    return cast(Tensor, out[0])


def _attention(  # noqa: PLR0913  the operator's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale * query @ key^T + mask) @ value over (..., heads, T, channels).

    Rows that are masked everywhere give zeros, as torch's own kernels do.
    """
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (_repeat_heads(t, repeats) for t in (key, value))
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        rows = torch.arange(query.shape[-2]).unsqueeze(1)
        columns = torch.arange(key.shape[-2]).unsqueeze(0)
        allowed = torch.where(columns <= rows, 0.0, -math.inf).to(query.dtype)
        weights = torch.softmax(scores + allowed, -1)
    elif attn_mask is None:
        weights = torch.softmax(scores, -1)
    else:
        if attn_mask.dtype is torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, -math.inf).to(query.dtype)
        weights = aten._safe_softmax.default(scores + attn_mask, -1)
    return _dropout(weights, dropout_p, dropout_p > 0.0) @ value


def _repeat_heads(x: Tensor, repeats: int) -> Tensor:
    *front, heads, steps, channels = x.shape
    wide = x.unsqueeze(-3).expand(*front, heads, repeats, steps, channels)
    return wide.reshape(*front, heads * repeats, steps, channels)


def _prod(x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    return _prod_along(x.reshape(-1), 0, dtype=dtype)


def _prod_along(
    x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Halve by products of two; the gradient is then made of products too, zeros or not."""
    x = x if dtype is None else x.to(dtype)
    while (n := x.shape[dim]) > 1:
        pairs = x.narrow(dim, 0, n // 2) * x.narrow(dim, n // 2, n // 2)
        x = torch.cat((pairs, x.narrow(dim, n - 1, 1)), dim) if n % 2 else pairs
    return x if keepdim else x.squeeze(dim)


def _nothing(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
    """An assertion about metadata holds by construction."""


def _same(x: Tensor, *_: object, **__: object) -> Tensor:
    """Dropout where nothing is trained."""
    return x


def _running(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    *rest: Any,  # noqa: ANN401
) -> Tensor:
    """Batch norm by running statistics, if it has any."""
    return _batch_norm(x, weight, bias, mean, var, training and mean is None, *rest)


REPLACED: dict[Any, Callable[..., Any]] = {
    **PLAIN,
    aten.dropout.default: _dropout,
    aten.dropout_.default: _dropout,
    aten.feature_dropout.default: _feature_dropout,
    aten.batch_norm.default: _batch_norm,
    aten.scaled_dot_product_attention.default: _attention,
    aten.prod.default: _prod,
    aten.prod.dim_int: _prod_along,
    aten._assert_tensor_metadata.default: _nothing,
    aten._assert_scalar.default: _nothing,
    aten._assert_async.msg: _nothing,
}

FROZEN: dict[Any, Callable[..., Any]] = {aten.batch_norm.default: _running}
"""What replaces operations whose statistics are frozen."""

INFERENCE: dict[Any, Callable[..., Any]] = {
    **FROZEN,
    aten.dropout.default: _same,
    aten.dropout_.default: _same,
    aten.feature_dropout.default: _same,
    aten.alpha_dropout.default: _same,
}
"""What replaces operations outside of training."""

_TRAINING_ARGUMENT: dict[Any, int] = {
    aten.batch_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.alpha_dropout.default: 2,
}


def acts_in_training(target: object, args: Sequence[object]) -> bool:
    """Whether an operation is one of `INFERENCE` with its training flag on."""
    position = _TRAINING_ARGUMENT.get(target)
    return position is not None and args[position] is True
