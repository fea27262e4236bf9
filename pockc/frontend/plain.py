"""Operations of the forward pass said in plainer ones, whose gradients are plain too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

aten = torch.ops.aten


def _separable(
    one: Callable[..., Any], spatial: int, *, corners: bool
) -> Callable[..., Tensor]:
    """Return resizing along each dimension by a constant matrix.

    Args:
        one: The operation in one dimension, which says what the matrices are: its columns are
            what it makes of unit vectors.
        spatial: How many dimensions are resized.
        corners: Whether the operation takes align_corners.
    """

    def resize(
        x: Tensor,
        size: Sequence[int] | None,
        *rest: Any,  # noqa: ANN401
    ) -> Tensor:
        flags, scales = (rest[:1], rest[1]) if corners else ((), rest[0])
        for i in range(spatial):
            dim = x.dim() - spatial + i
            target = None if size is None else [size[i]]
            scale = None if scales is None else [scales[i]]
            with _disable_current_modes():
                unit = torch.eye(x.shape[dim], dtype=torch.float64)[None]
                matrix = one(unit, target, *flags, scale)[0].to(x.dtype)
            if matrix.shape[1] != x.shape[dim] or not torch.equal(matrix, unit[0].to(x.dtype)):
                x = (x.transpose(dim, -1) @ matrix).transpose(dim, -1)
        return x

    return resize


def _nearest(one: Callable[..., Any], spatial: int) -> Callable[..., Tensor]:
    """Return resizing to the nearest element; by whole numbers it repeats elements."""
    general = _separable(one, spatial, corners=False)

    def resize(x: Tensor, size: Sequence[int] | None, scales: Sequence[float] | None) -> Tensor:
        old = x.shape[x.dim() - spatial :]
        new = size or [math.floor(n * s) for n, s in zip(old, scales or (), strict=True)]
        if any(n % o for n, o in zip(new, old, strict=True)):
            return general(x, size, scales)
        for i, (n, o) in enumerate(zip(new, old, strict=True)):
            dim = x.dim() - spatial + i
            wide = x.unsqueeze(dim + 1).expand(*x.shape[: dim + 1], n // o, *x.shape[dim + 1 :])
            x = wide.flatten(dim, dim + 1)
        return x

    return resize


def _cubic(
    x: Tensor, size: Sequence[int] | None, corners: bool, scale: Sequence[float] | None
) -> Tensor:
    """Bicubic resizing of rows (1, n, n) along the last dimension."""
    wide = None if size is None else [1, size[0]]
    scales = None if scale is None else [1.0, scale[0]]
    columns = x[0][:, None, None]
    return cast(Tensor, aten.upsample_bicubic2d.vec(columns, wide, corners, scales))[
        None, :, 0, 0
    ]


def _replication_pad(x: Tensor, amounts: Sequence[int]) -> Tensor:
    for i in range(len(amounts) // 2):
        dim, low, high = x.dim() - 1 - i, amounts[2 * i], amounts[2 * i + 1]
        at = torch.arange(-low, x.shape[dim] + high).clamp(0, x.shape[dim] - 1)
        x = x.index_select(dim, at)
    return x


def _pad(
    x: Tensor, amounts: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    if mode == "replicate":
        return _replication_pad(x, amounts)
    return cast(Tensor, aten.pad.default(x, amounts, mode, value))


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """All windows of a size along a dimension; their elements come last."""
    dim %= x.dim()
    starts = torch.arange(0, x.shape[dim] - size + 1, step)
    at = starts[:, None] + torch.arange(size)
    shape = (*x.shape[:dim], starts.shape[0], size, *x.shape[dim + 1 :])
    windows = x.index_select(dim, at.flatten()).reshape(shape)
    return windows.movedim(dim + 1, -1)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Salimans and Kingma, NeurIPS 2016: v scaled so that its norm along all but dim is g."""
    axes = [d for d in range(v.dim()) if d != dim % v.dim()]
    norm: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return v * (g / norm)


def _bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out = torch.einsum("...i,oij,...j->...o", x, weight, y)
    return out if bias is None else out + bias


def _cross(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    return x.roll(-1, dim) * y.roll(-2, dim) - x.roll(-2, dim) * y.roll(-1, dim)


def _bucketize(
    x: Tensor, bounds: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """How many bounds lie below each element (or on it)."""
    wide = x.unsqueeze(-1)
    below = bounds <= wide if right else bounds < wide
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _sinh(x: Tensor) -> Tensor:
    return (x.exp() - (-x).exp()) * 0.5


def _cosh(x: Tensor) -> Tensor:
    return (x.exp() + (-x).exp()) * 0.5


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y) + torch.log1p(torch.exp(-(x - y).abs()))


def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    if eps is not None:
        x = x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


def _nan_to_num(
    x: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    limits = torch.finfo(x.dtype)
    x = torch.where(x.isnan(), 0.0 if nan is None else nan, x)
    x = torch.where(x == math.inf, limits.max if posinf is None else posinf, x)
    return torch.where(x == -math.inf, limits.min if neginf is None else neginf, x)


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, channels, *rest = x.shape
    parts = x.reshape(n, groups, channels // groups, *rest)
    return parts.transpose(1, 2).reshape(x.shape)


def _frac(x: Tensor) -> Tensor:
    return x - x.trunc()


def _trace(x: Tensor) -> Tensor:
    return x.diagonal().sum()


def _addr(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return x * beta + torch.outer(a, b) * alpha


def _aminmax(
    x: Tensor, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = () if dim is None else dim
    return x.amin(axes, keepdim), x.amax(axes, keepdim)


_LINEAR = aten.upsample_linear1d.vec
PLAIN: dict[Any, Callable[..., Any]] = {
    _LINEAR: _separable(_LINEAR, 1, corners=True),
    aten.upsample_bilinear2d.vec: _separable(_LINEAR, 2, corners=True),
    aten.upsample_bicubic2d.vec: _separable(_cubic, 2, corners=True),
    aten.upsample_nearest1d.vec: _nearest(aten.upsample_nearest1d.vec, 1),
    aten.upsample_nearest2d.vec: _nearest(aten.upsample_nearest1d.vec, 2),
    aten._upsample_nearest_exact1d.vec: _nearest(aten._upsample_nearest_exact1d.vec, 1),
    aten._upsample_nearest_exact2d.vec: _nearest(aten._upsample_nearest_exact1d.vec, 2),
    aten.pad.default: _pad,
    aten.unfold.default: _unfold,
    aten._weight_norm.default: _weight_norm,
    aten.bilinear.default: _bilinear,
    aten.linalg_cross.default: _cross,
    aten.bucketize.Tensor: _bucketize,
    aten.sinh.default: _sinh,
    aten.cosh.default: _cosh,
    aten.logaddexp.default: _logaddexp,
    aten.logit.default: _logit,
    aten.nan_to_num.default: _nan_to_num,
    aten.channel_shuffle.default: _channel_shuffle,
    aten.frac.default: _frac,
    aten.trace.default: _trace,
    aten.addr.default: _addr,
    aten.aminmax.default: _aminmax,
}
