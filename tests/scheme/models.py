"""What schemes know of a model, made by hand or from a module without capturing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pockc.ir import DType, TensorType


@dataclass(frozen=True)
class Param:
    name: str
    shape: tuple[int, ...]
    kind: str
    module: str
    module_type: str
    first_use: int

    @property
    def type(self) -> TensorType:
        return TensorType(self.shape, DType.F32)


@dataclass(frozen=True)
class Module:
    name: str
    type: str
    facts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    parameters: dict[str, Param]
    modules: tuple[Module, ...]

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Channel i of every tensor, along every axis, is larger the larger i is."""
        return {n: _ramp(p.shape) for n, p in self.parameters.items()}


def _ramp(shape: tuple[int, ...]) -> np.ndarray:
    total = np.zeros(shape, np.float32)
    for axis, size in enumerate(shape):
        line = np.arange(1, size + 1, dtype=np.float32)
        total = total + line.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return total


class Builder:
    """Collects layers in the order of the forward pass."""

    def __init__(self) -> None:
        self.parameters: dict[str, Param] = {}
        self.modules: dict[str, Module] = {"": Module("", "Net")}

    def container(self, name: str, kind: str, **facts: int) -> None:
        self.modules[name] = Module(name, kind, facts)

    def add(self, module: str, kind: str, **shapes: tuple[int, ...]) -> None:
        self.modules.setdefault(module, Module(module, kind))
        for tensor, shape in shapes.items():
            name = f"{module}.{tensor}"
            sort = "bias" if tensor == "bias" else "weight"
            order = len(self.parameters)
            self.parameters[name] = Param(name, shape, sort, module, kind, order)

    def linear(self, module: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        shapes = {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if bias else {})
        self.add(module, "Linear", **shapes)

    def conv(self, module: str, inputs: int, outputs: int, size: int, groups: int = 1) -> None:
        self.add(module, "Conv2d", weight=(outputs, inputs // groups, size, size))

    def norm(self, module: str, size: int) -> None:
        self.add(module, "BatchNorm2d", weight=(size,), bias=(size,))

    def model(self) -> Model:
        return Model(self.parameters, tuple(self.modules.values()))


def bert(layers: int = 4, d: int = 8) -> Model:
    b = Builder()
    b.add("embeddings.word", "Embedding", weight=(20, d))
    b.container("encoder.layer", "ModuleList")
    for i in range(layers):
        at = f"encoder.layer.{i}"
        b.container(at, "BertLayer")
        b.container(f"{at}.attention.self", "SelfAttention", num_heads=2, head_dim=d // 2)
        for name in ("query", "key", "value"):
            b.linear(f"{at}.attention.self.{name}", d, d)
        b.linear(f"{at}.attention.output.dense", d, d)
        b.add(f"{at}.attention.output.norm", "LayerNorm", weight=(d,), bias=(d,))
        b.linear(f"{at}.intermediate.dense", d, 4 * d)
        b.linear(f"{at}.output.dense", 4 * d, d)
        b.add(f"{at}.output.norm", "LayerNorm", weight=(d,), bias=(d,))
    b.linear("pooler.dense", d, d)
    b.linear("classifier", d, 3)
    return b.model()


def llama(layers: int = 7, d: int = 8, heads: int = 4, shared: int = 2) -> Model:
    b = Builder()
    b.add("embed", "Embedding", weight=(20, d))
    b.container("layers", "ModuleList")
    width = d // heads
    for i in range(layers):
        at = f"layers.{i}"
        b.container(at, "DecoderLayer")
        b.add(f"{at}.norm1", "RMSNorm", weight=(d,))
        b.container(
            f"{at}.attn",
            "Attention",
            num_heads=heads,
            num_key_value_heads=shared,
            head_dim=width,
        )
        b.linear(f"{at}.attn.q", d, d, bias=False)
        b.linear(f"{at}.attn.k", d, shared * width, bias=False)
        b.linear(f"{at}.attn.v", d, shared * width, bias=False)
        b.linear(f"{at}.attn.o", d, d, bias=False)
        b.add(f"{at}.norm2", "RMSNorm", weight=(d,))
        b.linear(f"{at}.mlp.gate", d, 3 * d, bias=False)
        b.linear(f"{at}.mlp.up", d, 3 * d, bias=False)
        b.linear(f"{at}.mlp.down", 3 * d, d, bias=False)
    b.add("norm", "RMSNorm", weight=(d,))
    b.linear("lm_head", d, 20, bias=False)
    return b.model()


def mobilenet(blocks: int = 9) -> Model:
    """As torchvision's: stem and last convolution stand in the list of blocks too."""
    b = Builder()
    b.container("features", "Sequential")
    b.container("features.0", "ConvNormActivation")
    b.conv("features.0.0", 3, 8, 3)
    b.norm("features.0.1", 8)
    for i in range(1, blocks + 1):
        at = f"features.{i}"
        b.container(at, "InvertedResidual")
        b.container(f"{at}.conv", "Sequential")
        for j, (c, k, size, groups) in enumerate(((8, 48, 1, 1), (48, 48, 3, 48))):
            b.container(f"{at}.conv.{j}", "ConvNormActivation")
            b.conv(f"{at}.conv.{j}.0", c, k, size, groups)
            b.norm(f"{at}.conv.{j}.1", k)
        b.conv(f"{at}.conv.2", 48, 8, 1)
        b.norm(f"{at}.conv.3", 8)
    last = f"features.{blocks + 1}"
    b.container(last, "ConvNormActivation")
    b.conv(f"{last}.0", 8, 16, 1)
    b.norm(f"{last}.1", 16)
    b.linear("classifier.1", 16, 5)
    return b.model()


def resnet() -> Model:
    b = Builder()
    b.conv("conv1", 3, 8, 7)
    for stage in range(1, 5):
        b.container(f"layer{stage}", "Sequential")
        for i in range(3):
            at = f"layer{stage}.{i}"
            b.container(at, "Bottleneck")
            for j, size in ((1, 1), (2, 3), (3, 1)):
                b.conv(f"{at}.conv{j}", 8, 8, size)
                b.norm(f"{at}.bn{j}", 8)
    b.linear("fc", 8, 5)
    return b.model()


def mlp() -> Model:
    b = Builder()
    b.linear("fc1", 12, 20)
    b.linear("fc2", 20, 20)
    b.linear("head", 20, 5)
    return b.model()
