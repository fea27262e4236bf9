from __future__ import annotations

from pockc.passes import run_passes
from pockc.passes.fold_constants import FoldConstants
from tests.support import Golden, graph, ops_of, same_results, without_numbers

TABLES = """
%x : f32[4,4] = input batch "x"
%seed : i64[] = input scalar "seed"
%i : f32[4] = iota() {shape=(4,), axis=0, dtype=f32}
%s : f32[4] = sin(%i)
%two : f32[] = full() {shape=(), value=2.0, dtype=f32}
%four : f32[] = mul(%two, %two)
%t : f32[4] = mul(%s, %four)
%a : f32[4,4] = add(%x, %t)
%r : f32[4,4] = random_uniform(%seed) {shape=(4,4), salt=0}
%z : f32[4] = sub(%i, %i)
%b : f32[4,4] = mul(%a, %r)
%c : f32[4,4] = add(%b, %z)
output prediction "0" %c
"""


def test_what_no_input_changes_becomes_a_constant(golden: Golden) -> None:
    after = run_passes(graph(TABLES), [FoldConstants()])
    golden.check(without_numbers(str(after)))
    same_results(graph(TABLES), after)
    assert FoldConstants()(after) is after


MASK = """
%x : f32[64,64] = input batch "x"
%i : i64[64,1] = iota() {shape=(64,1), axis=0, dtype=i64}
%j : i64[1,64] = iota() {shape=(1,64), axis=1, dtype=i64}
%m : b1[64,64] = le(%j, %i)
%c : f32[64,64] = cast(%m) {dtype=f32}
%y : f32[64,64] = mul(%x, %c)
output prediction "0" %y
"""


def test_a_causal_mask_is_made_where_it_is_read() -> None:
    before = graph(MASK)
    assert FoldConstants()(before) is before
    assert "literal" in ops_of(run_passes(before, [FoldConstants(tiny_bytes=1 << 20)]))


def test_a_large_table_stays_computed() -> None:
    before = graph(TABLES)
    after = run_passes(before, [FoldConstants(limit_bytes=8)])
    assert "sin" in ops_of(after)
