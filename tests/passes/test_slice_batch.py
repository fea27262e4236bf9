from __future__ import annotations

import pytest

from pockc.passes import run_passes
from pockc.passes.memory import Storages
from pockc.passes.slice_batch import SliceBatch
from tests.support import Golden, graph, ops_of, same_results

# Two frozen layers, then one that is trained: its input is kept for its weight gradient.
PREFIX = """
%w : f32[16,3,3,3] = input param "stem.weight"
%b : f32[16] = input param "stem.bias"
%v : f32[4,16,1,1] = input param "narrow.weight"
%u : f32[2,4,1,1] = input param "last.weight"
%x : f32[4,3,8,8] = input batch "x"
%t : f32[4,2,8,8] = input batch "target"
%y : f32[4,16,8,8] = conv2d(%x, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%b4 : f32[1,16,1,1] = reshape(%b) {shape=(1,16,1,1)}
%a : f32[4,16,8,8] = add(%y, %b4)
%zero : f32[] = full() {shape=(), value=0.0, dtype=f32}
%r : f32[4,16,8,8] = maximum(%a, %zero)
%f : f32[4,16,64] = reshape(%r) {shape=(4,16,64)}
%h : f32[4,16,8,8] = reshape(%f) {shape=(4,16,8,8)}
%n : f32[4,4,8,8] = conv2d(%h, %v) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%o : f32[4,2,8,8] = conv2d(%n, %u) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%d : f32[4,2,8,8] = sub(%o, %t)
%s : f32[4,2,8,8] = mul(%d, %d)
%loss : f32[] = reduce_sum(%s) {axes=(0,1,2,3), keepdims=false}
%g : f32[2,4,1,1] = conv2d_grad_weight(%n, %d) {weight_shape=(2,4,1,1), stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
output loss %loss
output gradient "last.weight" %g
"""  # noqa: E501  graph text is as long as it is
ROW_BYTES = 16 * 64 * 4


def peak_bytes(text_or_graph: object) -> int:
    made = graph(text_or_graph) if isinstance(text_or_graph, str) else text_or_graph
    return max(Storages(made).live_bytes(list(made.nodes)))


def test_the_frozen_part_runs_in_slices(golden: Golden) -> None:
    step = SliceBatch(slice_bytes=2 * ROW_BYTES)
    after = run_passes(graph(PREFIX), [step])
    golden.check(str(after))
    same_results(graph(PREFIX), after, kind="rewrite")
    assert step(after) is after
    assert peak_bytes(after) < peak_bytes(PREFIX)


@pytest.mark.parametrize(("slice_bytes", "slices"), [(4 * ROW_BYTES, 0), (ROW_BYTES, 4)])
def test_slices_are_as_large_as_allowed(slice_bytes: int, slices: int) -> None:
    after = run_passes(graph(PREFIX), [SliceBatch(slice_bytes=slice_bytes)])
    same_results(graph(PREFIX), after, kind="rewrite")
    assert ops_of(after).count("maximum") == max(slices, 1)


def test_the_prefix_ends_where_backward_reads_its_middle() -> None:
    text = PREFIX.replace("output loss", 'output prediction "0" %r\noutput loss')
    after = run_passes(graph(text), [SliceBatch(slice_bytes=ROW_BYTES)])
    same_results(graph(text), after, kind="rewrite")
    whole = [n for n in after.nodes if n.type.shape == (4, 16, 8, 8)]
    assert [n.name for n in whole] == ["r", "h"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Rows that are summed over the batch, or mixed with another row's.
        ("add(%y, %b4)", "add(%y, %x16)"),
        ("reshape(%r) {shape=(4,16,64)}", "permute(%rr) {perm=(1,0,2)}"),
    ],
)
def test_values_that_mix_rows_are_not_sliced(old: str, new: str) -> None:
    text = PREFIX.replace(old, new)
    text = text.replace(
        "%a : f32",
        """%total : f32[1,16,8,8] = reduce_sum(%y) {axes=(0,), keepdims=true}
%x16 : f32[4,16,8,8] = broadcast_to(%total) {shape=(4,16,8,8)}
%a : f32""",
    ).replace(
        "%f : f32[4,16,64] = permute",
        """%rf : f32[4,16,64] = reshape(%r) {shape=(4,16,64)}
%rr : f32[16,4,64] = permute(%rf) {perm=(1,0,2)}
%f : f32[4,16,64] = permute""",
    )
    before = graph(text)
    after = run_passes(before, [SliceBatch(slice_bytes=ROW_BYTES)])
    same_results(before, after, kind="rewrite")
    assert any(n.name == "f" for n in after.nodes)


def test_large_frozen_tensors_are_not_read_for_every_slice() -> None:
    large = PREFIX.replace("4,3,8,8", "4,3,1,1").replace("8,8]", "1,1]").replace("64]", "1]")
    large = large.replace("(4,16,64)", "(4,16,1)").replace("(4,16,8,8)", "(4,16,1,1)")
    before = graph(large)
    assert SliceBatch(slice_bytes=1)(before) is before


def test_a_slice_of_wrong_rows_would_be_seen() -> None:
    after = run_passes(graph(PREFIX), [SliceBatch(slice_bytes=2 * ROW_BYTES)])
    wrong = str(after).replace("starts=(2, 0, 0, 0), steps", "starts=(1, 0, 0, 0), steps")
    wrong = wrong.replace("stops=(4, 3, 8, 8)", "stops=(3, 3, 8, 8)")
    with pytest.raises(AssertionError):
        same_results(graph(PREFIX), graph(wrong), kind="rewrite")
