"""Graph text: what is printed is what is read."""

from __future__ import annotations

import numpy as np
import pytest

from pockc.errors import UserError
from pockc.ir import (
    Batch,
    DType,
    Gradient,
    Graph,
    Literal,
    Loss,
    OptState,
    Param,
    Scalar,
    Source,
    StateUpdate,
    TensorType,
    f32,
    literals_of,
    print_graph,
)
from pockc.ir.builder import GraphBuilder
from pockc.ir.parser import parse_graph

TEXT = """\
graph train {
  %x : f32[2,3] = input batch "x"
  %w : f32[3,4; 1,0] = input param "fc \\"1\\""
  %m : f32[3,4] = input opt_state "exp avg" "fc.weight"
  %lr : f32[] = input scalar "lr"
  %h : f32[2,4] = matmul(%x, %w)
  %l : f32[2] = literal() {value=literal f32[2] [1.5, -inf]}
  %c : f32[] = full() {dtype=f32, shape=(), value=nan}
  %s : f32[] = reduce_sum(%h) {axes=(0, 1), keepdims=false}
  output loss %s
  output state_update "exp avg" "fc.weight" %m
}
"""


def body() -> Graph:
    b = GraphBuilder("body")
    x = b.input(Batch("0"), f32(4))
    b.output(Loss(), b.emit("exp", x))
    return b.build()


def test_text_that_was_read_prints_as_it_was() -> None:
    assert print_graph(parse_graph(TEXT)) == TEXT


def test_a_graph_that_was_printed_reads_as_it_was() -> None:
    graph = parse_graph(TEXT)
    assert parse_graph(str(graph)) == graph
    assert graph.inputs[1].role == Param('fc "1"')
    assert graph.inputs[2].role == OptState("exp avg", "fc.weight")
    assert graph.outputs[1].role == StateUpdate("exp avg", "fc.weight")
    assert graph.inputs[1].type.layout == (1, 0)


def test_a_changed_graph_is_another_graph() -> None:
    assert parse_graph(TEXT) != parse_graph(TEXT.replace("keepdims=false", "keepdims=true"))
    assert parse_graph(TEXT) != parse_graph(TEXT.replace("value=nan", "value=0.0"))
    assert parse_graph(TEXT) != parse_graph(TEXT.replace("-inf", "inf"))


def test_numbers_of_different_kinds_are_different_attributes() -> None:
    one = parse_graph(TEXT.replace("value=nan", "value=1"))
    assert one != parse_graph(TEXT.replace("value=nan", "value=1.0"))
    assert one != parse_graph(TEXT.replace("value=nan", "value=true"))


def test_large_literals_are_named_by_their_hash() -> None:
    b = GraphBuilder()
    value = Literal(np.arange(100, dtype=np.float32))
    b.output(Loss(), b.emit("literal", value=value))
    graph = b.build()
    assert literals_of(graph) == {value.digest: value}
    assert parse_graph(str(graph), literals_of(graph)) == graph
    with pytest.raises(UserError, match="no array with hash"):
        parse_graph(str(graph))


def test_a_fused_body_is_printed_inside_its_node() -> None:
    b = GraphBuilder()
    inner = body()
    inner = inner.replace(outputs=inner.outputs)
    b.output(Loss(), b.emit("fused", b.input(Batch("x"), f32(4)), body=inner))
    graph = b.build()
    assert "graph body {" in str(graph)
    assert parse_graph(str(graph)) == graph


def test_sources_are_comments_and_take_no_part_in_equality() -> None:
    b = GraphBuilder()
    x = b.input(Batch("x"), f32(4))
    line = Source("model.py", 27, "Mlp.forward", "return self.fc2(x)")
    b.output(Gradient("w"), b.emit("exp", x, source=line))
    graph = b.build()
    text = print_graph(graph, sources=True)
    assert "# model.py:27 in Mlp.forward: return self.fc2(x)" in text
    assert parse_graph(text) == graph


def test_every_dtype_has_a_spelling_and_a_size() -> None:
    for dtype in DType:
        tensor = TensorType((2, 3), dtype)
        b = GraphBuilder()
        b.input(Scalar("seed"), tensor)
        assert parse_graph(str(b.build())) == b.build()
        assert tensor.nbytes == 6 * dtype.nbytes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("matmul(%x, %w)", "matmul(%x; %w)", "line 6: expected ,, found ;"),
        (
            "f32[2,3]",
            "f99[2,3]",
            "line 2: no dtype 'f99'; choose from: f64, f32, f16, bf16, i64",
        ),
        ("f32[3,4; 1,0]", "f32[3,4; 1,1]", "line 3: layout (1, 1) does not order 2 dimensions"),
        ('batch "x"', 'bunch "x"', "line 2: no role 'bunch'; choose from: param, buffer"),
        ('batch "x"', 'batch "x" "y"', "role 'batch' does not take 2 names"),
        ("[1.5, -inf]", "[1.5]", "line 7: 1 numbers for f32[2]"),
        ("output loss %s\n", "output loss $s\n", "line 10: cannot read '$'"),
        ("}\n", "", "expected value, found end of text"),
    ],
)
def test_text_that_cannot_be_read_says_where(old: str, new: str, message: str) -> None:
    text = TEXT[: TEXT.rindex("}")] if not new else TEXT.replace(old, new)
    with pytest.raises(UserError) as caught:
        parse_graph(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("[graph-text]")
