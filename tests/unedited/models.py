"""Models as timm and transformers define them, small enough to train in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 10
TOKENS = 24


@dataclass(frozen=True)
class ZooModel:
    """A model and what it is trained with.

    Attributes:
        make: Builds it, with random weights.
        batch: Makes the inputs by name, and the target.
        lr: A learning rate at which three steps change every tensor and the loss stays tame.
    """

    make: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], tuple[dict[str, Tensor], Tensor]]
    lr: float = 0.01


def _timm(name: str, size: int, rows: int = 2, lr: float = 0.01, **options: object) -> ZooModel:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)

    def batch(g: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        images = torch.randn(rows, 3, size, size, generator=g)
        return {"x": images}, torch.randint(CLASSES, (rows,), generator=g)

    return ZooModel(make, batch, lr)


def _texts(g: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(200, (3, TOKENS), generator=g)
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (3, 1), generator=g)
    mask = (torch.arange(TOKENS)[None] < lengths).long()
    labels = torch.randint(CLASSES, (3,), generator=g)
    return {"input_ids": ids, "attention_mask": mask}, labels


def _continuations(g: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    ids = torch.randint(200, (2, TOKENS + 1), generator=g)
    return {"input_ids": ids[:, :-1].contiguous()}, ids[:, 1:].contiguous()


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=32, num_labels=CLASSES,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def _distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=200, dim=64, n_layers=2, n_heads=4, hidden_dim=128,
        max_position_embeddings=32, num_labels=CLASSES,
        dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
    )  # fmt: skip
    return DistilBertForSequenceClassification(config)


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=128, max_position_embeddings=64,
        use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _qwen2() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=128, max_position_embeddings=64,
        use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


ZOO: Mapping[str, ZooModel] = {
    "resnet18": _timm("resnet18", 64),
    "mobilenetv2_100": _timm("mobilenetv2_100", 64, lr=1e-6),
    "mobilenetv3_small_100": _timm("mobilenetv3_small_100", 64, lr=1e-3),
    "efficientnet_lite0": _timm("efficientnet_lite0", 64, lr=1e-6),
    "vit_tiny_patch16_224": _timm("vit_tiny_patch16_224", 64, img_size=64),
    "convnext_atto": _timm("convnext_atto", 64),
    "bert": ZooModel(_bert, _texts),
    "distilbert": ZooModel(_distilbert, _texts),
    "llama": ZooModel(_llama, _continuations, 0.1),
    "qwen2": ZooModel(_qwen2, _continuations, 0.1),
}


def make(name: str, seed: int = 0) -> nn.Module:
    """Return a model whose batch norms know the statistics of a batch."""
    torch.manual_seed(seed)
    model = ZOO[name].make()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.momentum = 1.0
        # Of many rows: the statistics of two would leave variances near zero, and gradients
        # so large that rounding decides where training goes.
        given = [inputs for inputs, _ in batches(name, 16, seed=2)]
        rows = {k: torch.cat([g[k] for g in given]) for k in given[0]}
        with torch.no_grad():
            model.train()(**rows)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()


def batches(name: str, count: int, seed: int = 1) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Return batches of random inputs by name, each with its target."""
    generator = torch.Generator().manual_seed(seed)
    return [ZOO[name].batch(generator) for _ in range(count)]
