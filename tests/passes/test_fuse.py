from __future__ import annotations

from dataclasses import replace

import pytest

from pockc.ir import Graph, Node
from pockc.passes import run_passes
from pockc.passes.attach_optimizer import Attachment, AttachOptimizer
from pockc.passes.canonicalize import Canonicalize
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.fuse import Fuse
from pockc.passes.fusion_rules import FusionRules
from tests.passes.nets import CONV, MLP, ROWS, sgd
from tests.support import Golden, graph, ops_of, same_results

BEFORE = (Canonicalize(), ChooseLayout())


def fused(text: str, rules: FusionRules | None = None) -> Graph:
    before = run_passes(graph(text), BEFORE)
    after = run_passes(before, [Fuse(rules or FusionRules())])
    same_results(before, after)
    return after


def body(node: Node) -> list[str]:
    return ops_of(node.attrs["body"])


def reads(of: Graph, name: str) -> tuple[str, ...]:
    return next(n.inputs for n in of.nodes if n.name == name)


def kernels(of: Graph) -> dict[str, list[str]]:
    return {
        n.name: body(n) if n.op == "fused" else [n.op]
        for n in of.nodes
        if n.op not in ("reshape", "permute", "literal")
    }


def test_a_product_takes_its_bias_and_activation_in(golden: Golden) -> None:
    after = fused(MLP)
    golden.check(str(after))
    found = kernels(after)
    assert found["z"] == ["matmul", "add", "tanh"]
    assert found["da"] == ["matmul", "full", "mul", "sub", "mul"]
    assert found["loss"] == ["mul", "reduce_sum"]


def test_softmax_and_layer_norm_are_one_kernel_each(golden: Golden) -> None:
    after = fused(ROWS)
    golden.check(str(after))
    # Both sweep the same rows: one kernel reads x and g and keeps nothing between them.
    assert kernels(after)["y"].count("reduce_sum") == 3
    assert reads(after, "y") == ("x", "g")
    # A sum over columns cannot make statistics of rows: it reads them.
    assert kernels(after)["gg"].count("reduce_sum") == 1
    assert {"d", "mean", "r"} < set(reads(after, "gg"))


def test_rows_must_be_innermost_in_memory() -> None:
    text = """
        %x : f32[4,8] = input batch "x"
        %m : f32[1,8] = reduce_max(%x) {axes=(0,), keepdims=true}
        %y : f32[4,8] = sub(%x, %m)
        output prediction "0" %y
    """
    assert "fused" not in [n.op for n in fused(text).nodes]
    innermost = text.replace("[1,8]", "[4,1]").replace("axes=(0,)", "axes=(1,)")
    assert [n.op for n in fused(innermost).nodes] == ["fused"]
    assert "fused" not in [n.op for n in fused(innermost, FusionRules(row_bytes=16)).nodes]


def test_a_mask_is_made_again_rather_than_kept() -> None:
    found = kernels(fused(CONV))
    assert not any(ops[-1] == "gt" for ops in found.values())


def test_a_sum_of_two_products_takes_one_of_them_in() -> None:
    after = fused("""
        %x : f32[4,8] = input batch "x"
        %w : f32[8,8] = input param "w"
        %v : f32[8,8] = input param "v"
        %a : f32[4,8] = matmul(%x, %w)
        %b : f32[4,8] = matmul(%x, %v)
        %y : f32[4,8] = add(%a, %b)
        output prediction "0" %y
    """)
    assert sorted(kernels(after).values()) == [["matmul"], ["matmul", "add"]]


def test_a_product_with_two_readers_is_made_once() -> None:
    after = fused("""
        %x : f32[4,8] = input batch "x"
        %w : f32[8,8] = input param "w"
        %a : f32[4,8] = matmul(%x, %w)
        %b : f32[4,8] = exp(%a)
        %c : f32[4,8] = neg(%a)
        output prediction "0" %b
        output prediction "1" %c
    """)
    assert ops_of(after).count("matmul") == 1


def test_scalars_that_are_dear_are_made_once_and_not_per_element() -> None:
    after = fused("""
        %x : f32[64] = input batch "x"
        %lr : f32[] = input scalar "lr"
        %step : f32[] = input scalar "step"
        %rate : f32[] = pow(%lr, %step)
        %twice : f32[] = add(%lr, %lr)
        %a : f32[64] = mul(%x, %rate)
        %b : f32[64] = mul(%a, %twice)
        output prediction "0" %b
    """)
    assert kernels(after) == {"rate": ["pow"], "b": ["mul", "add", "mul"]}


@pytest.mark.parametrize("text", [MLP, CONV, ROWS])
def test_products_read_what_is_in_memory(text: str) -> None:
    for node in fused(text).nodes:
        if node.op != "fused":
            continue
        inner: Graph = node.attrs["body"]
        for product in inner.nodes:
            if product.op in FusionRules().contractions:
                assert {inner.node(i) for i in product.inputs} == {None}


def test_nothing_is_taken_in_below_a_product() -> None:
    after = fused("""
        %x : f32[4,8] = input batch "x"
        %w : f32[8,8] = input param "w"
        %e : f32[4,8] = exp(%x)
        %y : f32[4,8] = matmul(%e, %w)
        output prediction "0" %y
    """)
    assert [n.op for n in after.nodes] == ["exp", "matmul"]


def test_an_update_joins_the_gradient_only_where_it_can_be_in_place() -> None:
    recipes = AttachOptimizer((Attachment("fc2.weight", sgd(8, 4)),))
    text = "\n".join(line for line in MLP.splitlines() if 'gradient "fc1' not in line)
    plain = sgd(8, 4)
    assert plain.outputs
    before = run_passes(graph(text), [recipes, *BEFORE])
    for allowed in (True, False):
        rules = replace(FusionRules(), update_in_anchor=allowed)
        after = run_passes(before, [Fuse(rules)])
        same_results(before, after)
        joined = [ops for ops in kernels(after).values() if "matmul" in ops and "div" in ops]
        assert not joined  # momentum is read twice: the gradient's kernel ends with it
        ended = [
            ops for ops in kernels(after).values() if ops[:1] == ["matmul"] and "add" in ops
        ]
        assert any("full" in ops for ops in kernels(after).values())
        assert bool(ended) or not allowed


def test_the_rules_are_obeyed() -> None:
    none = FusionRules(
        injective=frozenset(),
        epilogue=frozenset(),
        contractions=frozenset(),
        reductions=frozenset(),
        rows=frozenset(),
    )
    assert "fused" not in [n.op for n in fused(MLP, none).nodes]
    few = fused(ROWS, FusionRules(operands=3))
    assert max(len(n.inputs) for n in few.nodes if n.op == "fused") == 3
    assert max(len(n.inputs) for n in fused(ROWS).nodes if n.op == "fused") == 5


def test_fused_nodes_stay_as_they_are() -> None:
    after = fused(MLP)
    assert Fuse()(after) is after


def test_a_wrong_body_would_be_seen() -> None:
    before = run_passes(graph(MLP), BEFORE)
    after = run_passes(before, [Fuse()])
    wrong = graph(str(after).replace("tanh(", "sigmoid("))
    with pytest.raises(AssertionError):
        same_results(before, wrong)


def test_sums_are_not_taken_in_below_a_move() -> None:
    before = run_passes(
        graph("""
        %x : f32[4,8] = input batch "x"
        %m : f32[4,1] = reduce_max(%x) {axes=(1,), keepdims=true}
        %b : f32[4,8] = broadcast_to(%m) {shape=(4,8)}
        %y : f32[4,8] = sub(%x, %b)
        output prediction "0" %y
    """),
        [ChooseLayout()],
    )
    after = run_passes(before, [Fuse()])
    same_results(before, after)
    assert kernels(after) == {"m": ["reduce_max"], "y": ["broadcast_to", "sub"]}


JOINED = """
%x : f32[4,8] = input batch "x"
%y : f32[4,8] = input batch "y"
%a : f32[4,8] = add(%x, %y)
%b : f32[4,8] = tanh(%a)
%c : f32[4,8] = sigmoid(%a)
output prediction "0" %b
output prediction "1" %c
"""


def test_a_sum_of_two_tensors_with_two_readers_is_kept() -> None:
    # Made again it would be two reads in the place of one.
    assert kernels(fused(JOINED)) == {"a": ["add"], "b": ["tanh"], "c": ["sigmoid"]}
    one = JOINED.replace("add(%x, %y)", "mul(%x, %x)")
    assert kernels(fused(one)) == {"b": ["mul", "tanh"], "c": ["mul", "sigmoid"]}
