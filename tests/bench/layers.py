"""The nets once more, in terms of layers that any framework can supply.

For frameworks that cannot run `tests.bench.nets`. Parameters are named as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tests.bench.cases import INVERTED, RESIDUAL

Value = Any


class Layers(Protocol):
    """What a framework supplies. A name is a module's, a value what it computes with."""

    def conv_norm(
        self, name: str, x: Value, *, size: int, stride: int = 1, depthwise: bool = False
    ) -> Value:
        """Convolve with square filters, padded by size // 2, and normalise."""
        ...

    def linear(self, name: str, x: Value) -> Value: ...

    def embedding(self, name: str, ids: Value) -> Value: ...

    def parameter(self, name: str) -> Value: ...

    def layer_norm(self, name: str, x: Value) -> Value: ...

    def attention(self, q: Value, k: Value, v: Value, heads: int) -> Value: ...

    def relu(self, x: Value) -> Value: ...

    def relu6(self, x: Value) -> Value: ...

    def gelu(self, x: Value) -> Value: ...

    def tanh(self, x: Value) -> Value: ...

    def add(self, a: Value, b: Value) -> Value: ...

    def max_pool(self, x: Value) -> Value: ...

    def mean_of_pixels(self, x: Value) -> Value: ...

    def first_token(self, x: Value) -> Value: ...


def supported(net: str) -> bool:
    """Return whether a net is defined here."""
    return net in INVERTED or net in RESIDUAL or net in ("bert", "distilbert")


def outputs(f: Layers, x: Value, workload: dict[str, Any]) -> Value:
    """Return the logits of a workload, given as `tests.bench.cases.Workload`'s fields."""
    net = workload["net"]
    if net in INVERTED:
        return _mobile_net(f, x, net)
    if net in RESIDUAL:
        return _residual_net(f, x, net)
    return _encoder(f, x, workload["sizes"], f.tanh if net == "bert" else f.relu)


def _mobile_net(f: Layers, x: Value, net: str) -> Value:
    sizes = INVERTED[net]
    x = f.relu6(f.conv_norm("stem", x, size=3, stride=2))
    c, at = sizes.stem, 0
    for expansion, k, count, stride, size in sizes.stages:
        for i in range(count):
            step, block = stride if i == 0 else 1, f"blocks.{at}"
            y = x
            if expansion != 1:
                y = f.relu6(f.conv_norm(f"{block}.expand", y, size=1))
            name = f"{block}.depthwise"
            y = f.relu6(f.conv_norm(name, y, size=size, stride=step, depthwise=True))
            y = f.conv_norm(f"{block}.project", y, size=1)
            x = f.add(x, y) if step == 1 and c == k else y
            c, at = k, at + 1
    if sizes.head:
        x = f.relu6(f.conv_norm("head", x, size=1))
    return f.linear("fc", f.mean_of_pixels(x))


def _residual_net(f: Layers, x: Value, net: str) -> Value:
    bottleneck = net == "resnet50"
    x = f.max_pool(f.relu(f.conv_norm("stem", x, size=7, stride=2)))
    c, at = 64, 0
    for stage, count in enumerate(RESIDUAL[net]):
        k = 64 << stage
        wide = 4 * k if bottleneck else k
        for i in range(count):
            step, block = 2 if stage > 0 and i == 0 else 1, f"blocks.{at}"
            convs = [(1, 1), (3, step), (1, 1)] if bottleneck else [(3, step), (3, 1)]
            y = x
            for j, (size, stride) in enumerate(convs):
                y = f.conv_norm(f"{block}.convs.{j}", y, size=size, stride=stride)
                y = f.relu(y) if j + 1 < len(convs) else y
            if step != 1 or c != wide:
                x = f.conv_norm(f"{block}.shortcut", x, size=1, stride=step)
            x = f.relu(f.add(x, y))
            c, at = wide, at + 1
    return f.linear("fc", f.mean_of_pixels(x))


def _encoder(
    f: Layers, ids: Value, sizes: dict[str, int], squash: Callable[[Value], Value]
) -> Value:
    x = f.layer_norm("norm", f.add(f.embedding("words", ids), f.parameter("positions")))
    for i in range(sizes["layers"]):
        block = f"blocks.{i}"
        q, k, v = (f.linear(f"{block}.{n}", x) for n in ("query", "key", "value"))
        y = f.linear(f"{block}.output", f.attention(q, k, v, sizes["heads"]))
        x = f.layer_norm(f"{block}.attention_norm", f.add(x, y))
        y = f.linear(f"{block}.down", f.gelu(f.linear(f"{block}.up", x)))
        x = f.layer_norm(f"{block}.norm", f.add(x, y))
    return f.linear("fc", squash(f.linear("pooler", f.first_token(x))))
