"""The example models, as they are but for fewer pixels and words, with random weights.

Layers keep their width, so that kernels have the shapes that they have on a board.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import need, stand_in_for_torchvision

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 3
WHOLE_RATE = 1e-3
"""The learning rate of `mobilenet_whole`."""


@dataclass(frozen=True)
class DeviceModel:
    """A model, what is trained of it, and a batch for each step.

    Attributes:
        model: The module.
        loss: As `pockc.compile` takes it.
        sparse_update: Likewise. Not with Adam, which makes a whole step of a gradient that is
            zero but for rounding, as that of a key's bias.
        batches: Inputs and target of all steps, one batch after the other, by name.
        rows: Rows of a batch.
    """

    model: nn.Module
    loss: Any
    sparse_update: Mapping[str, Any]
    batches: Mapping[str, Tensor]
    rows: int

    @property
    def first(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs and the target of the first step."""
        *inputs, target = (b[: self.rows] for b in self.batches.values())
        return tuple(inputs), target


def _example(name: str, package: str, **sizes: int) -> Any:
    """Return the module of an example's model.py with some constants changed."""
    need(package, f"see the README of examples/{name}")
    path = EXAMPLES / name / "model.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(sizes)
    torch.manual_seed(0)
    return module


def _draw(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def minilm() -> DeviceModel:
    """MiniLM-L6 with 2 x 16 tokens of a small vocabulary."""
    example = _example("text", "safetensors", VOCABULARY=500, POSITIONS=64)
    rows, length = 2, 16
    update = {
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        "update": [
            {"match": "encoder.layer.[45].*", "train": "bias"},
            {"match": "encoder.layer.[45].intermediate.dense", "train": "all"},
            {"match": "classifier.*", "train": "all"},
        ],
    }
    mask = torch.ones(rows * STEPS, length, dtype=torch.int64)
    mask[1::2, 10:] = 0
    batches = {
        "input_ids": _draw(500, rows * STEPS, length),
        "attention_mask": mask,
        "target": _draw(8, rows * STEPS),
    }
    return DeviceModel(example.TextClassifier(8), "cross_entropy", update, batches, rows)


def mobilenet() -> DeviceModel:
    """MobileNetV2 with 2 x 64 x 64 pixels, the last four blocks trained."""
    need("timm", "pip install --no-deps timm torchvision==0.28.0; pip install pillow")
    stand_in_for_torchvision()
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100", num_classes=10)
    rows = 2
    images = torch.rand(rows * STEPS, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    batches = {"x": images, "target": _draw(10, rows * STEPS)}
    # Statistics as training would have left them; else three steps blow rounding up.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images)
    # Through all of it, gradients of random weights are so steep that rounding decides.
    update = {"optimizer": {"name": "sgd", "lr": 1e-4, "momentum": 0.9}, "preset": "last:4"}
    return DeviceModel(model.eval(), "cross_entropy", update, batches, rows)


def mobilenet_whole() -> DeviceModel:
    """One step of everything in it."""
    part = mobilenet()
    one = {name: batch[: part.rows] for name, batch in part.batches.items()}
    update = {"optimizer": {"name": "sgd", "lr": WHOLE_RATE}}
    return replace(part, sparse_update=update, batches=one)


def decoder() -> DeviceModel:
    """Four layers of SmolLM2 with 16 tokens of a small vocabulary."""
    example = _example("decoder", "gguf", VOCABULARY=500, LAYERS=4)
    update = {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "update": [
            {"match": "model.layers.[23].self_attn.o_proj", "train": "weight"},
            {"match": "model.layers.[23].mlp.down_proj", "train": "weight"},
        ],
    }
    ids = _draw(500, STEPS, 17)
    batches = {"input_ids": ids[:, :-1].contiguous(), "target": ids[:, 1:].contiguous()}
    model = example.LanguageModel()
    nn.init.normal_(model.lm_head.weight, std=0.02)  # tied; as published, or logits are huge
    return DeviceModel(model, example.loss, update, batches, 1)


MODELS: dict[str, Callable[[], DeviceModel]] = {
    "minilm": minilm,
    "mobilenet": mobilenet,
    "mobilenet_whole": mobilenet_whole,
    "decoder": decoder,
}
