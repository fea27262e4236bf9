"""Arenas of real training steps stay within 5 % of the lower bound, and copy nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pockc.frontend.capture import capture
from pockc.frontend.optimizers import recipe
from pockc.passes import pipeline
from pockc.passes.attach_optimizer import Attachment
from pockc.plan import COPY_KERNEL, Entry, make_plan, verify_plan
from pockc.scheme import load_config, resolve
from tests.nets import BertLayer, InvertedResidual, LlamaLayer, conv_bn
from tests.plan.machine import entry_of

pytestmark = [pytest.mark.slow, pytest.mark.needs_torch]


class MobileNetV2(nn.Module):
    """Its 17 blocks at full width (Sandler et al., CVPR 2018, table 2)."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
        blocks, c = [], 32
        for expand, k, count, stride in plan:
            for i in range(count):
                blocks.append(InvertedResidual(c, k, stride if i == 0 else 1, expand))
                c = k
        self.stem, self.blocks = conv_bn(3, 32, 3, 2), nn.Sequential(*blocks)
        self.last, self.classifier = conv_bn(320, 1280, 1), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class Encoder(nn.Module):
    """BERT-base's twelve layers, over embeddings of a small vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 768)
        self.layers = nn.ModuleList(BertLayer(768, 12) for _ in range(12))
        self.classifier = nn.Linear(768, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x, seen = self.tokens(ids), mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, seen)
        return self.classifier(x[:, 0])


class Decoder(nn.Module):
    """Twelve layers of grouped-query attention and gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 256)
        self.layers = nn.ModuleList(LlamaLayer(256, 8, 4) for _ in range(12))
        self.head = nn.Linear(256, 500, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        position = torch.arange(ids.shape[1])[:, None]
        angle = position / 1e4 ** (torch.arange(0, 32, 2) / 32)
        angle = torch.cat((angle, angle), -1)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin())
        return self.head(x)


def inputs_of(net: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    ids = torch.zeros(4, 128, dtype=torch.long)
    if net == "bert":
        return Encoder(), (ids, torch.ones(4, 128))
    if net == "decoder":
        return Decoder(), (ids,)
    return MobileNetV2().eval(), (torch.zeros(4, 3, 224, 224),)


def step_of(model: nn.Module, inputs: tuple[Tensor, ...], preset: str) -> list[Entry]:
    captured = capture(model, inputs)
    config = load_config({"preset": preset})
    scheme = resolve(config, captured.parameters, captured.values, captured.modules)
    attachments = tuple(
        Attachment(name, recipe("adamw", captured.parameters[name].type).graph)
        for name in scheme.trained
    )
    choices = pipeline.Choices(scheme.names, attachments, values=captured.values)
    graphs = {"train": captured.train, "predict": captured.predict}
    made = pipeline.compile_entries(graphs, choices)
    return [entry_of(g, name=n) for n, g in made.items()]


@pytest.mark.parametrize("preset", ["full", "pockengine"])
@pytest.mark.parametrize("net", ["mobilenetv2", "bert", "decoder"])
def test_the_arena_is_within_5_percent_of_the_lower_bound(net: str, preset: str) -> None:
    entries = step_of(*inputs_of(net), preset)
    plan = make_plan(entries)
    verify_plan(entries, plan)
    for entry in plan.entries:
        assert entry.arena_bytes <= 1.05 * entry.lower_bound_bytes
        assert not [s.node for s in entry.steps if s.kernel == COPY_KERNEL]
