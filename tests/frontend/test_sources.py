"""Every node names the user's line, in backward the line of its forward operation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pockc.frontend.capture import capture
from pockc.ir import Gradient, Node
from pockc.ops import OPS, OpKind


def scaled(x: Tensor) -> Tensor:
    return x * 0.5


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.fc(x))
        return scaled(self.norm(h)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.conv = nn.Conv1d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return torch.tanh(self.conv(x[:, None])).mean(-1)


CAPTURED = capture(Net(), torch.randn(3, 4))
LINES = Path(__file__).read_text(encoding="utf-8").splitlines()


def node_of(parameter: str) -> Node:
    """Return the product that is a parameter's gradient, past views."""
    output = CAPTURED.train.output_of(Gradient(parameter))
    assert output is not None
    node = CAPTURED.train.node(output.value)
    while node is not None and OPS[node.op].kind is OpKind.VIEW:
        node = CAPTURED.train.node(node.inputs[0])
    assert node is not None
    return node


def test_every_computing_node_has_a_source() -> None:
    bare = [n.name for n in CAPTURED.train.nodes if n.source is None and n.op != "full"]
    assert bare == []


def test_a_source_quotes_the_line_it_names() -> None:
    sources = {n.source for n in CAPTURED.train.nodes if n.source}
    here = [s for s in sources if s.file == "tests/frontend/test_sources.py"]
    assert len(here) >= 5
    for source in here:
        assert LINES[source.line - 1].strip() == source.text


def test_forward_and_backward_of_a_layer_name_one_line() -> None:
    forward = next(n for n in CAPTURED.train.nodes if n.op == "matmul")
    backward = node_of("blocks.0.fc.weight")
    assert backward.op == "matmul"
    assert forward.source == backward.source
    assert str(backward.source) == (
        f"tests/frontend/test_sources.py:{_line('h = F.gelu')} in Block.forward: "
        "h = F.gelu(self.fc(x))"
    )


def test_a_source_names_the_innermost_module() -> None:
    for parameter, module in (("blocks.1.fc.weight", "blocks.1.fc"), ("conv.weight", "conv")):
        source = node_of(parameter).source
        assert source is not None
        assert source.module == module


def test_a_helper_function_is_named_by_the_line_that_calls_it() -> None:
    functions = {n.source.function for n in CAPTURED.train.nodes if n.source}
    assert functions == {"Block.forward", "Net.forward", "cross_entropy"}
    texts = {n.source.text for n in CAPTURED.train.nodes if n.source}
    assert "return scaled(self.norm(h)) + x" in texts


def test_ops_of_different_lines_are_told_apart() -> None:
    erf = {n.source.text for n in CAPTURED.train.nodes if n.op == "erf" and n.source}
    tanh = {n.source.text for n in CAPTURED.train.nodes if n.op == "tanh" and n.source}
    assert erf == {"h = F.gelu(self.fc(x))"}
    assert tanh == {"return torch.tanh(self.conv(x[:, None])).mean(-1)"}


def test_a_model_of_torchs_layers_names_torchs_line() -> None:
    captured = capture(nn.Sequential(nn.Linear(3, 2)), torch.randn(2, 3))
    source = next(n.source for n in captured.train.nodes if n.op == "matmul")
    assert source is not None
    assert source.file == "torch/nn/modules/container.py"
    assert source.function == "Sequential.forward"
    assert source.module == "0"


def _line(begins: str) -> int:
    return next(i + 1 for i, text in enumerate(LINES) if text.strip().startswith(begins))
