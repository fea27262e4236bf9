"""Models of timm and transformers, as they are published, at sizes that a test can afford."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

_NMS = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_LIBRARIES: list[torch.library.Library] = []


@dataclass(frozen=True)
class Example:
    """A model with one batch.

    Attributes:
        model: The module, dropout off, so that PyTorch computes the same in training.
        inputs: Positional inputs, or inputs by name.
        target: None if the model returns its loss.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...] | Mapping[str, Tensor]
    target: Tensor | None

    @property
    def loss(self) -> str:
        return "model" if self.target is None else "cross_entropy"

    def outputs(self) -> Any:
        """Return what the model computes."""
        if isinstance(self.inputs, Mapping):
            return self.model(**self.inputs)
        return self.model(*self.inputs)

    def eager_loss(self) -> Tensor:
        """Return the loss that PyTorch computes."""
        outputs = self.outputs()
        if self.target is None:
            return outputs.loss
        logits = getattr(outputs, "logits", outputs)
        return nn.functional.cross_entropy(logits.flatten(0, -2), self.target.flatten())


def need(package: str, install: str) -> None:
    """Skip the test if a package is missing."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {install}")


def stand_in_for_torchvision() -> None:
    """Let torchvision be imported where its compiled half, which wants CUDA, does not load.

    timm needs it; transformers imports it wherever it is installed.
    """
    if not _LIBRARIES and "torchvision" not in sys.modules:
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
        library = torch.library.Library("torchvision", "DEF")
        library.define(_NMS)
        _LIBRARIES.append(library)


def _timm() -> Any:
    need("timm", "pip install --no-deps timm torchvision==0.28.0; pip install pillow")
    stand_in_for_torchvision()
    return importlib.import_module("timm")


def _image(name: str, size: int = 64, **options: Any) -> Callable[[], Example]:
    def make() -> Example:
        model = _timm().create_model(name, num_classes=10, **options)
        return Example(model, (torch.randn(2, 3, size, size),), torch.tensor([3, 7]))

    return make


def _transformers() -> Any:
    need("transformers", "pip install transformers")
    stand_in_for_torchvision()
    return importlib.import_module("transformers")


IDS = torch.arange(24).reshape(2, 12) * 17 % 100
MASK = (torch.arange(12)[None] < torch.tensor([[12], [8]])).long()


def _encoder(kind: str, **options: Any) -> Callable[[], Example]:
    def make() -> Example:
        library = _transformers()
        config = getattr(library, f"{kind}Config")(vocab_size=100, num_labels=3, **options)
        model = getattr(library, f"{kind}ForSequenceClassification")(config)
        inputs = {"input_ids": IDS, "attention_mask": MASK}
        return Example(model, inputs, torch.tensor([0, 2]))

    return make


def _decoder(kind: str, *, own_loss: bool = False, **options: Any) -> Callable[[], Example]:
    def make() -> Example:
        library = _transformers()
        config = getattr(library, f"{kind}Config")(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            use_cache=False,
            **options,
        )
        model = getattr(library, f"{kind}ForCausalLM")(config)
        inputs = {"input_ids": IDS, "attention_mask": MASK}
        if own_loss:
            return Example(model, {**inputs, "labels": IDS}, None)
        return Example(model, inputs, IDS.roll(-1, 1))

    return make


_SMALL_BERT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_SMALL_DISTILBERT = {
    "dim": 32,
    "hidden_dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}

MODELS: dict[str, Callable[[], Example]] = {
    "resnet18": _image("resnet18", 32),
    "mobilenetv2_100": _image("mobilenetv2_100"),
    "mobilenetv3_small_100": _image("mobilenetv3_small_100"),
    "efficientnet_lite0": _image("efficientnet_lite0", 32),
    "vit_tiny_patch16_224": _image("vit_tiny_patch16_224", 64, img_size=64),
    "convnext_atto": _image("convnext_atto"),
    "distilbert": _encoder("DistilBert", **_SMALL_DISTILBERT),
    "bert": _encoder("Bert", **_SMALL_BERT),
    "llama": _decoder("Llama"),
    "llama_own_loss": _decoder("Llama", own_loss=True),
    "qwen2": _decoder("Qwen2", tie_word_embeddings=True),
}


def example(name: str) -> Example:
    """Return a model of the zoo with its batch, the same at every call."""
    torch.manual_seed(0)
    made = MODELS[name]()
    made.model.eval()
    return made
