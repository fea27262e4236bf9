from __future__ import annotations

from pockc.passes import run_passes
from pockc.passes.share_common import ShareCommon
from tests.support import Golden, graph, same_results

TWICE = """
%x : f32[4] = input batch "x"
%y : f32[4] = input batch "y"
%seed : i64[] = input scalar "seed"
%a : f32[4] = add(%x, %y)
%b : f32[4] = add(%y, %x)
%c : f32[4] = exp(%a)
%d : f32[4] = exp(%b)
%e : f32[4] = sub(%x, %y)
%f : f32[4] = sub(%y, %x)
%r0 : f32[4] = random_uniform(%seed) {shape=(4,), salt=1}
%r1 : f32[4] = random_uniform(%seed) {shape=(4,), salt=1}
%r2 : f32[4] = random_uniform(%seed) {shape=(4,), salt=2}
output prediction "0" %c
output prediction "1" %d
output prediction "2" %e
output prediction "3" %f
output prediction "4" %r0
output prediction "5" %r1
output prediction "6" %r2
"""


def test_equal_values_are_computed_once_and_others_are_not_confused(golden: Golden) -> None:
    after = run_passes(graph(TWICE), [ShareCommon()])
    golden.check(str(after))
    same_results(graph(TWICE), after)
    assert ShareCommon()(after) is after


def test_attributes_that_compare_equal_in_python_may_differ() -> None:
    before = graph("""
        %x : f32[4] = input batch "x"
        %a : f32[] = full() {shape=(), value=0.0, dtype=f32}
        %b : f32[] = full() {shape=(), value=-0.0, dtype=f32}
        %c : f32[4] = div(%x, %a)
        %d : f32[4] = div(%x, %b)
        output prediction "0" %c
        output prediction "1" %d
    """)
    assert ShareCommon()(before) is before
