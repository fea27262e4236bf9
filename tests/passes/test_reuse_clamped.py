from __future__ import annotations

import pytest

from pockc.passes import run_passes
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.fuse import Fuse
from pockc.passes.reuse_clamped import ReuseClamped
from tests.support import Golden, graph, ops_of, same_results

RELU6 = """
%x : f32[2,8,16,16] = input batch "x"
%w : f32[8,8,3,3] = input param "w"
%zero : f32[] = full() {shape=(), value=0.0, dtype=f32}
%six : f32[] = full() {shape=(), value=6.0, dtype=f32}
%a : f32[2,8,16,16] = conv2d(%x, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%low : b1[2,8,16,16] = gt(%a, %zero)
%m : f32[2,8,16,16] = maximum(%a, %zero)
%y : f32[2,8,16,16] = minimum(%m, %six)
%b : f32[2,8,16,16] = conv2d(%y, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%c : f32[2,8,16,16] = conv2d(%b, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%e : f32[2,8,16,16] = conv2d(%c, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%high : b1[2,8,16,16] = lt(%a, %six)
%in : b1[2,8,16,16] = logical_and(%low, %high)
%d : f32[2,8,16,16] = where(%in, %e, %zero)
output prediction "0" %d
"""


def test_comparisons_read_the_clamped_value(golden: Golden) -> None:
    after = run_passes(graph(RELU6), [ReuseClamped()])
    golden.check(str(after))
    same_results(graph(RELU6), after)
    assert ReuseClamped()(after) is after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # 0 <= a tells nothing about max(a, 0); a < 0 and a > 6 are lost likewise.
        ("gt(%a, %zero)", "ge(%a, %zero)"),
        ("gt(%a, %zero)", "lt(%a, %zero)"),
        ("lt(%a, %six)", "gt(%a, %six)"),
        ("lt(%a, %six)", "lt(%six, %a)"),
        # Another reader needs the operand all the same.
        ("conv2d(%y, %w)", "conv2d(%a, %w)"),
        ('output prediction "0" %d', 'output prediction "0" %d\noutput prediction "1" %a'),
    ],
)
def test_what_the_clamped_value_does_not_tell_stays(old: str, new: str) -> None:
    before = graph(RELU6.replace(old, new))
    assert ReuseClamped()(before) is before


def test_a_comparison_that_moved_wrongly_would_be_seen() -> None:
    wrong = RELU6.replace("lt(%a, %six)", "lt(%m, %zero)")
    with pytest.raises(AssertionError):
        same_results(graph(RELU6), graph(wrong))


def test_backward_keeps_the_mask_and_not_the_numbers() -> None:
    after = run_passes(graph(RELU6), [ReuseClamped(), ChooseLayout(), Fuse()])
    same_results(graph(RELU6), after)
    kept = {n.name: n.type.dtype.value for n in after.nodes}
    assert kept["in"] == "b1"
    readers = [n.name for n in after.users["y"]]
    assert sorted(readers) == ["b", "in"]


def test_a_mask_that_is_read_at_once_is_not_kept() -> None:
    near = RELU6.replace("where(%in, %e, %zero)", "where(%in, %y, %zero)")
    after = run_passes(graph(near), [ReuseClamped(), ChooseLayout(), Fuse()])
    assert not any(n.type.dtype.value == "b1" for n in after.nodes)
    assert "logical_and" in ops_of(after)
