"""Five small nets of the families that pockc is for, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """Three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, 20)
        self.fc2 = nn.Linear(20, 20)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.fc1(x))
        x = functional.gelu(self.fc2(x))
        return self.head(x)


def conv_bn(c: int, k: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(k), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand, filter, project (Sandler et al., MobileNetV2, CVPR 2018, section 3.3)."""

    def __init__(self, c: int, k: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = c * expand
        self.add = stride == 1 and c == k
        self.expand = conv_bn(c, mid, 1)
        self.depthwise = conv_bn(mid, mid, 3, stride, groups=mid)
        self.project = conv_bn(mid, k, 1)[:2]

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.add else y


class MobileNetV2(nn.Module):
    """MobileNetV2 with few and thin blocks, for 24 x 24 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        plan = [(8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 20, 2)]
        self.blocks = nn.Sequential(*(InvertedResidual(c, k, s, 3) for c, k, s in plan))
        self.last = conv_bn(20, 40, 1)
        self.classifier = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., ResNet, CVPR 2016, section 3.3)."""

    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, k, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(k)
        self.conv2 = nn.Conv2d(k, k, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(k)
        self.down: nn.Module = nn.Identity()
        if stride != 1 or c != k:
            self.down = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.down(x))


class ResNet(nn.Module):
    """A stem with pooling and three blocks, two of them with strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.blocks = nn.Sequential(
            BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 24, 2)
        )
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2, 1)
        return self.fc(functional.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


class BertLayer(nn.Module):
    """Attention and feed-forward with norms after (Devlin et al., BERT, NAACL 2019)."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Softmax cancels a bias of the keys: its gradient would be rounding noise.
        self.key = nn.Linear(d, d, bias=False)
        self.query, self.value = nn.Linear(d, d), nn.Linear(d, d)
        self.out = nn.Linear(d, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (
            f(x).view(n, t, self.heads, d // self.heads).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.out(y.transpose(1, 2).reshape(n, t, d)))
        return self.norm2(x + self.fc2(functional.gelu(self.fc1(x))))


class Bert(nn.Module):
    """Two layers over token and position embeddings; padding is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50, 24), nn.Embedding(10, 24)
        self.norm = nn.LayerNorm(24)
        self.layers = nn.ModuleList(BertLayer(24, 3) for _ in range(2))
        self.pooler = nn.Linear(24, 24)
        self.classifier = nn.Linear(24, 5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.tokens(ids) + self.positions(torch.arange(ids.shape[1])))
        seen = mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, seen)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class RmsNorm(nn.Module):
    """Scale by the root mean square (Zhang and Sennrich, NeurIPS 2019)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs of channels by their position (Su et al., RoFormer, 2021)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class LlamaLayer(nn.Module):
    """Grouped-query attention with rotary positions, and a gated feed-forward."""

    def __init__(self, d: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, d // heads
        self.norm1, self.norm2 = RmsNorm(d), RmsNorm(d)
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, kv_heads * self.size, bias=False)
        self.v_proj = nn.Linear(d, kv_heads * self.size, bias=False)
        self.o_proj = nn.Linear(d, d, bias=False)
        self.gate, self.up = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, 2 * d, bias=False)
        self.down = nn.Linear(2 * d, d, bias=False)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, t, d = x.shape
        q = self.q_proj(x).view(n, t, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(n, t, self.kv_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(n, t, self.kv_heads, self.size).transpose(1, 2)
        k = rotate(k, cos, sin).repeat_interleave(self.heads // self.kv_heads, 1)
        v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        y = functional.scaled_dot_product_attention(rotate(q, cos, sin), k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(n, t, d))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x), cos, sin)
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Two decoder layers with tied embeddings (Touvron et al., Llama 2, 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.layers = nn.ModuleList(LlamaLayer(16, 4, 2) for _ in range(2))
        self.norm = RmsNorm(16)
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1])[:, None]
        angle = position / 1e4 ** (torch.arange(0, 4, 2) / 4)
        angle = torch.cat((angle, angle), -1)
        cos, sin = angle.cos(), angle.sin()
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


@dataclass(frozen=True)
class Net:
    """A net, what it reads, and how it is trained in part.

    Attributes:
        make: Builds it.
        batch: Makes the inputs and the target of a batch of so many rows.
        last: Patterns of the modules that a last-blocks scheme trains.
        channels: Rules of a scheme that trains some channels.
    """

    make: Callable[[], nn.Module]
    batch: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    last: tuple[str, ...]
    channels: tuple[dict[str, object], ...]


def _images(n: int, g: torch.Generator) -> tuple[Tensor, ...]:
    return torch.randn(n, 3, 24, 24, generator=g), torch.randint(5, (n,), generator=g)


def _vectors(n: int, g: torch.Generator) -> tuple[Tensor, ...]:
    return torch.randn(n, 12, generator=g), torch.randint(5, (n,), generator=g)


def _texts(n: int, g: torch.Generator) -> tuple[Tensor, ...]:
    ids = torch.randint(50, (n, 10), generator=g)
    lengths = torch.randint(4, 11, (n, 1), generator=g)
    mask = (torch.arange(10)[None] < lengths).long()
    return ids, mask, torch.randint(5, (n,), generator=g)


def _tokens(n: int, g: torch.Generator) -> tuple[Tensor, ...]:
    ids = torch.randint(40, (n, 9), generator=g)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def _part(match: str, axis: str, by: str = "magnitude", **amount: float) -> dict[str, object]:
    return {"match": match, "train": "weight", "channels": {"axis": axis, "by": by, **amount}}


NETS: dict[str, Net] = {
    "mlp": Net(
        Mlp,
        _vectors,
        ("head.*",),
        (_part("fc1", "out", count=7), _part("fc2", "in", fraction=0.5)),
    ),
    "mobilenet": Net(
        MobileNetV2,
        _images,
        ("blocks.3.*", "last.*", "classifier.*"),
        (
            _part("blocks.3.expand.0", "in", fraction=0.5),
            _part("blocks.2.project.0", "out", "first", count=5),
            _part("blocks.2.depthwise.0", "out", fraction=0.25),
        ),
    ),
    "resnet": Net(
        ResNet,
        _images,
        ("blocks.2.*", "fc.*"),
        (
            _part("blocks.2.conv1", "in", "random", fraction=0.5, seed=1),
            _part("blocks.1.conv2", "out", "first", count=4),
        ),
    ),
    "bert": Net(
        Bert,
        _texts,
        ("layers.1.*", "pooler.*", "classifier.*"),
        (
            _part("layers.1.fc1", "in", fraction=0.5),
            _part("layers.1.value", "out", "first", count=8),
            _part("layers.0.fc2", "in", "random", fraction=0.25, seed=3),
        ),
    ),
    "llama": Net(
        Llama,
        _tokens,
        ("layers.1.*", "norm.*"),
        (_part("layers.1.down", "in", fraction=0.5), _part("layers.0.q_proj", "out", count=8)),
    ),
}


def make(name: str, seed: int = 0) -> nn.Module:
    """Return a net with random weights and, where it has them, random running statistics."""
    torch.manual_seed(seed)
    net = NETS[name].make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net


def batches(name: str, rows: int, count: int, seed: int = 1) -> list[tuple[Tensor, ...]]:
    """Return batches of random inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    return [NETS[name].batch(rows, generator) for _ in range(count)]
