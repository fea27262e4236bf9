from __future__ import annotations

import pytest

from pockc.ir import print_graph
from pockc.passes import run_passes
from pockc.passes.canonicalize import Canonicalize
from tests.passes.identities import CASES, DECLINED, case
from tests.support import Golden, graph, ops_of, same_results


def test_every_identity_gives_the_simplest_form(golden: Golden) -> None:
    texts = []
    for name, body in CASES.items():
        after = run_passes(case(body), [Canonicalize()])
        lines = print_graph(after.replace(name=name)).splitlines()
        texts += [line for line in lines if " = input " not in line]
    golden.check("\n".join(texts) + "\n")


@pytest.mark.parametrize("name", CASES)
def test_an_identity_applies_once_and_keeps_the_meaning(name: str) -> None:
    before = case(CASES[name])
    after = run_passes(before, [Canonicalize()])
    assert after is not before
    same_results(before, after, kind="rewrite", below=4)
    assert Canonicalize()(after) is after


@pytest.mark.parametrize("name", DECLINED)
def test_what_only_looks_like_an_identity_stays(name: str) -> None:
    before = case(DECLINED[name])
    assert Canonicalize()(before) is before


def test_a_rewrite_that_is_wrong_would_be_seen() -> None:
    before = case(CASES["add_to_negative"])
    after = run_passes(before, [Canonicalize()])
    text = print_graph(after)
    with pytest.raises(AssertionError):
        same_results(before, graph(text.replace("sub(%y, %x)", "sub(%x, %y)")), kind="rewrite")


def test_attention_heads_keep_to_views_beside_each_other() -> None:
    before = graph("""
        %x : f32[2,5,8] = input batch "x"
        %w : f32[8,8] = input param "w"
        %flat : f32[10,8] = reshape(%x) {shape=(10,8)}
        %q : f32[10,8] = matmul(%flat, %w)
        %q3 : f32[2,5,8] = reshape(%q) {shape=(2,5,8)}
        %q4 : f32[2,5,2,4] = reshape(%q3) {shape=(2,5,2,4)}
        %heads : f32[2,2,5,4] = permute(%q4) {perm=(0,2,1,3)}
        %merged : f32[4,5,4] = reshape(%heads) {shape=(4,5,4)}
        %turned : f32[4,4,5] = permute(%merged) {perm=(0,2,1)}
        %scores : f32[4,5,5] = matmul(%merged, %turned)
        %out : f32[4,5,4] = matmul(%scores, %merged)
        %split : f32[2,2,5,4] = reshape(%out) {shape=(2,2,5,4)}
        %back : f32[2,5,2,4] = permute(%split) {perm=(0,2,1,3)}
        %y : f32[2,5,8] = reshape(%back) {shape=(2,5,8)}
        output prediction "0" %y
    """)
    after = run_passes(before, [Canonicalize()])
    # NumPy's products of batches round differently, by how the operands lie in memory.
    same_results(before, after, kind="rewrite")
    assert ops_of(after) == [
        *("matmul", "reshape", "permute", "permute"),
        *("matmul", "matmul", "permute", "reshape"),
    ]
