# ruff: noqa: E501  graph text is as long as it is
from __future__ import annotations

import numpy as np
import pytest

from pockc.ir import Buffer, Graph, InputRole, Param
from pockc.passes import Pass, run_passes
from pockc.passes.canonicalize import Canonicalize
from pockc.passes.fold_frozen import FoldFrozen
from pockc.passes.prune_backward import PruneBackward
from tests.passes.nets import CONV
from tests.support import Golden, graph, ops_of, random_inputs, same_results, without_numbers

Given = dict[InputRole, np.ndarray]


def values() -> Given:
    given = random_inputs(graph(CONV))
    given[Buffer("bn.running_var")] = np.abs(given[Buffer("bn.running_var")]) + np.float32(0.5)
    return given


def fold(given: Given, *trained: str, held: frozenset[str] = frozenset()) -> Graph:
    frozen = {
        r.name: a
        for r, a in given.items()
        if isinstance(r, (Param, Buffer)) and r.name not in trained
    }
    pruned = PruneBackward(frozenset(trained))
    passes: list[Pass] = [Canonicalize(), pruned, FoldFrozen(frozen, held=held), Canonicalize()]
    return run_passes(graph(CONV), passes)


def reference(*trained: str) -> Graph:
    return run_passes(graph(CONV), [PruneBackward(frozenset(trained))])


def test_frozen_batch_norm_leaves_an_addition(golden: Golden) -> None:
    given = values()
    after = fold(given, "last.weight")
    golden.check(without_numbers(str(after)))
    same_results(reference("last.weight"), after, kind="rewrite", given=given)
    assert not {"rsqrt", "sub"} & set(ops_of(after))
    # The factor went into the filters, forward and backward alike.
    assert ops_of(after).count("mul") == 0


def test_with_a_trained_filter_one_factor_and_one_term_are_left() -> None:
    given = values()
    after = fold(given, "conv.weight", "last.weight")
    same_results(reference("conv.weight", "last.weight"), after, kind="rewrite", given=given)
    forward = ops_of(after)[: ops_of(after).index("maximum")]
    assert sorted(op for op in forward if op in ("add", "sub", "mul")) == ["add", "mul"]


def test_a_trained_shift_keeps_the_filters_folded() -> None:
    given = values()
    after = fold(given, "bn.bias")
    same_results(reference("bn.bias"), after, kind="rewrite", given=given)
    assert not after.users["w"]


def test_filters_that_another_entry_reads_are_not_held_twice() -> None:
    given = values()
    after = fold(given, "last.weight", held=frozenset({"conv.weight"}))
    same_results(reference("last.weight"), after, kind="rewrite", given=given)
    assert after.users["w"]


def test_the_same_filters_with_two_factors_are_not_folded() -> None:
    two = graph("""
        %w : f32[4,3,1,1] = input param "w"
        %a : f32[4,1,1] = input param "a"
        %b : f32[4,1,1] = input param "b"
        %x : f32[2,3,5,5] = input batch "x"
        %y : f32[2,4,5,5] = conv2d(%x, %w) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
        %p : f32[2,4,5,5] = mul(%y, %a)
        %t : f32[2,3,5,5] = tanh(%x)
        %z : f32[2,4,5,5] = conv2d(%t, %w) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
        %q : f32[2,4,5,5] = mul(%z, %b)
        output prediction "0" %p
        output prediction "1" %q
    """)
    given = random_inputs(two)
    frozen = {r.name: a for r, a in given.items() if isinstance(r, Param)}
    after = run_passes(two, [FoldFrozen(frozen)])
    same_results(two, after, kind="rewrite", given=given)
    assert len(after.users["w"]) == 2
    alike = {**frozen, "b": frozen["a"]}
    assert not run_passes(two, [FoldFrozen(alike)]).users["w"]


def test_other_frozen_subgraphs_become_constants_where_they_are_not_larger() -> None:
    net = graph("""
        %w : f32[8,4] = input param "w"
        %s : f32[4] = input param "s"
        %x : f32[3,8] = input batch "x"
        %e : f32[4] = exp(%s)
        %big : f32[500,4] = broadcast_to(%e) {shape=(500,4)}
        %y : f32[3,4] = matmul(%x, %w)
        %z : f32[3,4] = mul(%y, %e)
        output prediction "0" %z
        output prediction "1" %big
    """)
    given = random_inputs(net)
    after = run_passes(net, [FoldFrozen({"w": given[Param("w")], "s": given[Param("s")]})])
    same_results(net, after, given=given)
    assert "exp" in ops_of(after)  # what an output reads is computed
    assert after.users["w"]


def test_a_wrong_value_would_be_seen() -> None:
    given = values()
    other = {**given, Param("bn.weight"): given[Param("bn.weight")] * 2}
    after = fold(other, "last.weight")
    with pytest.raises(AssertionError):
        same_results(reference("last.weight"), after, kind="rewrite", given=given)


def test_nothing_frozen_gives_the_same_object() -> None:
    net = run_passes(graph(CONV), [Canonicalize()])
    assert FoldFrozen({})(net) is net
