"""How much arithmetic a training step needs, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tests.bench.cases import Case
from tests.bench.nets import make_net, trained_names


class _Counter(TorchFunctionMode):
    """Counts multiply-adds of products and convolutions, forward and backward.

    The error of an input is needed if something before it is trained, the gradient of a weight
    if it is trained itself: PyTorch's own `requires_grad` knows both. PyTorch's
    FlopCounterMode takes a depthwise convolution's backward for a dense one's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds: int = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (functional.linear, torch.conv2d, functional.conv2d):
            x, weight = args[:2]
            ways = 1 + x.requires_grad + weight.requires_grad
            self.multiply_adds += result.numel() * weight[0].numel() * ways
        elif func is functional.scaled_dot_product_attention:
            self.multiply_adds += _attention(*args[:3])
        return result


def _attention(q: Tensor, k: Tensor, v: Tensor) -> int:
    """Return the multiply-adds of attention over (N, heads, T, size); a mask saves nothing."""
    scores = q.requires_grad or k.requires_grad
    ways = 2 + v.requires_grad + scores + q.requires_grad + k.requires_grad
    return ways * q.numel() * int(k.shape[-2])


def multiply_adds(case: Case) -> int:
    """Return the multiply-adds of one step of a case, elementwise work not counted."""
    spec = case.spec
    with torch.device("meta"):
        net = make_net(spec)
        shape = spec.input_shape
        x = torch.empty(shape) if spec.takes_images else torch.zeros(shape, dtype=torch.long)
    trained = set(trained_names(net, case.mode))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    with _Counter() as counter:
        net(x)
    return counter.multiply_adds
