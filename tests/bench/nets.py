"""The nets as PyTorch modules, for pockc and for PyTorch itself.

Every net has `blocks`, how many of the last ones a sparse update tunes, and the names of its
tuned weights, so that `trained_names` is the same set for whoever trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.bench.cases import INVERTED, RESIDUAL, Workload


class Net(nn.Module):
    """What the nets have in common.

    Attributes:
        blocks: The repeated part, in order.
        tuned_blocks: How many of the last blocks a sparse update tunes.
        tuned_ends: Names of parameters and modules outside of the blocks that it tunes.
    """

    blocks: nn.ModuleList
    tuned_blocks: int
    tuned_ends: tuple[str, ...]


class Block(nn.Module):
    """One of the repeated blocks; `tuned` are the weights of it that a sparse update tunes."""

    tuned: tuple[str, ...] = ()


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and activation."""

    def __init__(
        self,
        c: int,
        k: int,
        size: int,
        stride: int = 1,
        groups: int = 1,
        clip: float | None = 6.0,
    ) -> None:
        """Make it; `clip` is the activation's upper bound, infinite for ReLU, None for none."""
        super().__init__()
        self.conv = nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(k)
        self.act: nn.Module = nn.Identity()
        if clip is not None:
            self.act = nn.ReLU6() if clip == 6.0 else nn.ReLU()
        else:
            # The last of a residual branch: keeps the sum over many blocks small.
            nn.init.constant_(self.norm.weight, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


class InvertedResidual(Block):
    """Expansion, depthwise convolution, projection (Sandler et al., MobileNetV2, 2018)."""

    tuned = ("expand.conv.weight",)

    def __init__(self, c: int, k: int, stride: int, expansion: int, size: int) -> None:
        super().__init__()
        wide = c * expansion
        self.expand = ConvNorm(c, wide, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, size, stride, groups=wide)
        self.project = ConvNorm(wide, k, 1, clip=None)
        self.adds = stride == 1 and c == k

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class MobileNet(Net):
    """A net of inverted residuals."""

    tuned_blocks = 7
    tuned_ends = ("head.norm.bias", "fc")

    def __init__(self, sizes: Workload) -> None:
        super().__init__()
        net = INVERTED[sizes.net]
        self.stem = ConvNorm(3, net.stem, 3, 2)
        blocks, c = [], net.stem
        for expansion, k, count, stride, size in net.stages:
            for i in range(count):
                blocks.append(InvertedResidual(c, k, stride if i == 0 else 1, expansion, size))
                c = k
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(c, net.head, 1) if net.head else nn.Identity()
        self.fc = nn.Linear(net.head or c, sizes.sizes["classes"])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.fc(self.head(x).mean((2, 3)))
        return result


class Residual(Block):
    """The basic and the bottleneck block (He et al., ResNet, 2016, with v1.5's stride)."""

    tuned = ("convs.0.conv.weight",)

    def __init__(self, c: int, k: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        relu, last = float("inf"), None
        wide = 4 * k if bottleneck else k
        if bottleneck:
            convs = [
                ConvNorm(c, k, 1, clip=relu),
                ConvNorm(k, k, 3, stride, clip=relu),
                ConvNorm(k, wide, 1, clip=last),
            ]
        else:
            convs = [ConvNorm(c, k, 3, stride, clip=relu), ConvNorm(k, k, 3, clip=last)]
        self.convs = nn.Sequential(*convs)
        same = stride == 1 and c == wide
        self.shortcut = nn.Identity() if same else ConvNorm(c, wide, 1, stride, clip=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.convs(x))


class ResNet(Net):
    """A residual net."""

    tuned_ends = ("fc",)

    def __init__(self, sizes: Workload, *, bottleneck: bool) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, 2, clip=float("inf"))
        blocks, c = [], 64
        for stage, count in enumerate(RESIDUAL[sizes.net]):
            k = 64 << stage
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Residual(c, k, stride, bottleneck=bottleneck))
                c = 4 * k if bottleneck else k
        self.blocks = nn.ModuleList(blocks)
        self.tuned_blocks = len(blocks) // 2
        self.fc = nn.Linear(c, sizes.sizes["classes"])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.stem(x), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.fc(x.mean((2, 3)))
        return result


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, causal: bool) -> Tensor:
    """Return attention over tensors of shape (N, T, heads * size), in the same shape."""
    n, t, wide = q.shape
    q, k, v = (x.view(n, t, heads, wide // heads).transpose(1, 2) for x in (q, k, v))
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return y.transpose(1, 2).reshape(n, t, wide)


class EncoderLayer(Block):
    """Self-attention and a feed-forward part, each normalised after its addition."""

    tuned = ("query.weight", "key.weight", "value.weight", "output.weight", "up.weight")

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        y = attention(self.query(x), self.key(x), self.value(x), self.heads, causal=False)
        x = self.attention_norm(x + self.output(y))
        result: Tensor = self.norm(x + self.down(functional.gelu(self.up(x))))
        return result


class Encoder(Net):
    """BERT for classification, without token types; `pooled` is BERT's own head."""

    def __init__(self, sizes: Workload, *, pooled: bool) -> None:
        super().__init__()
        s = sizes.sizes
        hidden = s["hidden"]
        self.words = nn.Embedding(s["vocabulary"], hidden)
        self.positions = nn.Parameter(torch.empty(s["sequence"], hidden))
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.blocks = nn.ModuleList(
            EncoderLayer(hidden, s["heads"], s["inner"]) for _ in range(s["layers"])
        )
        self.tuned_blocks = s["layers"] // 2
        self.pooler = nn.Linear(hidden, hidden)
        self.fc = nn.Linear(hidden, s["classes"])
        self.tuned_ends = ("pooler", "fc")
        self.squash: Callable[[Tensor], Tensor] = torch.tanh if pooled else functional.relu

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.positions)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.fc(self.squash(self.pooler(x[:, 0])))
        return result


class DecoderLayer(Block):
    """Rotary causal attention and a gated feed-forward part, each normalised before."""

    tuned = (
        "query.weight", "key.weight", "value.weight", "output.weight",
        "gate.weight", "up.weight",
    )  # fmt: skip

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.RMSNorm(hidden, eps=1e-5)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        self.gate = nn.Linear(hidden, inner, bias=False)
        self.up = nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, t, wide = x.shape
        a, b = x.view(n, t, self.heads, wide // self.heads).chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).reshape(n, t, wide)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.attention_norm(x)
        q, k = (self._rotated(f(y), cos, sin) for f in (self.query, self.key))
        x = x + self.output(attention(q, k, self.value(y), self.heads, causal=True))
        y = self.norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Decoder(Net):
    """A Llama-like language model (Touvron et al., 2023) without grouped queries."""

    tuned_ends = ("head",)

    def __init__(self, sizes: Workload) -> None:
        super().__init__()
        s = sizes.sizes
        hidden, half = s["hidden"], s["hidden"] // s["heads"] // 2
        self.words = nn.Embedding(s["vocabulary"], hidden)
        self.blocks = nn.ModuleList(
            DecoderLayer(hidden, s["heads"], s["inner"]) for _ in range(s["layers"])
        )
        self.tuned_blocks = s["layers"] // 2
        self.norm = nn.RMSNorm(hidden, eps=1e-5)
        self.head = nn.Linear(hidden, s["vocabulary"], bias=False)
        angles = torch.arange(s["sequence"])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None], persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        result: Tensor = self.head(self.norm(x))
        return result


NETS: dict[str, Callable[[Workload], Net]] = {
    "mobilenet_v2": MobileNet,
    "efficientnet_lite0": MobileNet,
    "tiny": MobileNet,
    "resnet18": lambda w: ResNet(w, bottleneck=False),
    "resnet50": lambda w: ResNet(w, bottleneck=True),
    "bert": lambda w: Encoder(w, pooled=True),
    "distilbert": lambda w: Encoder(w, pooled=False),
    "llama": Decoder,
}


def make_net(workload: Workload) -> Net:
    """Return a net in inference mode, so that running statistics are frozen."""
    net = NETS[workload.net](workload)
    net.eval()
    return net


def trained_names(net: Net, mode: str) -> list[str]:
    """Return the names of the trained parameters, in the net's order.

    `sparse` is PockEngine's scheme (Zhu et al., MICRO 2023, §4.1): biases and the first weights
    of the last blocks, and the classifier.
    """
    names = [name for name, _ in net.named_parameters()]
    kept = set(names) if mode == "full" else set(_sparse_names(net))
    return [name for name in names if name in kept]


def _sparse_names(net: Net) -> Iterator[str]:
    first = len(net.blocks) - net.tuned_blocks
    for i, block in enumerate(net.blocks):
        if i >= first and isinstance(block, Block):
            for name, _ in block.named_parameters():
                if name in block.tuned or name.endswith("bias"):
                    yield f"blocks.{i}.{name}"
    for name, _ in net.named_parameters():
        if name in net.tuned_ends or name.rpartition(".")[0] in net.tuned_ends:
            yield name
