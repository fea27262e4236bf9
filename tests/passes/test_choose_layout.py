# ruff: noqa: E501  graph text is as long as it is
from __future__ import annotations

import pytest

from pockc.errors import InternalError
from pockc.ir import Graph
from pockc.ir.verify import verify, views_only
from pockc.passes import run_passes
from pockc.passes.canonicalize import Canonicalize
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.layout_wishes import FILTERS, IMAGES, state_layouts
from tests.passes.nets import CONV, MLP
from tests.support import Golden, graph, ops_of, same_results


def laid_out(text: str) -> Graph:
    before = run_passes(graph(text), [Canonicalize()])
    after = run_passes(before, [ChooseLayout()])
    same_results(before, after)
    assert ChooseLayout()(after) is after
    return after


def test_images_are_channels_last_and_only_the_input_is_copied(golden: Golden) -> None:
    after = laid_out(CONV)
    golden.check(str(after))
    copies = [n for n in after.nodes if n.op == "relayout"]
    # The input at the door, and the gradients that this graph hands out row-major.
    assert [n.inputs[0] for n in copies if n.inputs[0] not in ("gw", "gv")] == ["x"]
    assert after.type_of("w").order == FILTERS
    assert after.type_of("h").order == IMAGES
    assert after.type_of("da").order == IMAGES


def test_matrices_stay_row_major_and_transposes_are_views() -> None:
    after = laid_out(MLP)
    assert "relayout" not in ops_of(after)
    assert after.type_of("xt").layout == (1, 0)
    assert after.type_of("g1").row_major


HEADS = """
%x : f32[2,5,8] = input batch "x"
%v : f32[2,2,5,4] = input batch "v"
%q : f32[2,5,2,4] = reshape(%x) {shape=(2,5,2,4)}
%heads : f32[2,2,5,4] = permute(%q) {perm=(0,2,1,3)}
%turned : f32[2,2,4,5] = permute(%heads) {perm=(0,1,3,2)}
%scores : f32[2,2,5,5] = matmul(%heads, %turned)
%out : f32[2,2,5,4] = matmul(%scores, %v)
%back : f32[2,5,2,4] = permute(%out) {perm=(0,2,1,3)}
%y : f32[2,5,8] = reshape(%back) {shape=(2,5,8)}
output prediction "0" %y
"""


def test_splitting_and_merging_heads_moves_no_bytes(golden: Golden) -> None:
    after = laid_out(HEADS)
    golden.check(str(after))
    assert "relayout" not in ops_of(after)


FLATTENED = """
%x : f32[2,3,6,6] = input batch "x"
%w : f32[8,3,3,3] = input param "w"
%y : f32[2,8,4,4] = conv2d(%x, %w) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%f : f32[2,128] = reshape(%y) {shape=(2,128)}
output prediction "0" %f
"""


def test_a_flattened_image_is_copied_once() -> None:
    after = laid_out(FLATTENED)
    assert [n.inputs[0] for n in after.nodes if n.op == "relayout"] == ["x", "y"]


def test_channels_times_pixels_as_in_a_patch_embedding_are_not_copied() -> None:
    text = FLATTENED.replace(
        "%f : f32[2,128] = reshape(%y) {shape=(2,128)}",
        "%g : f32[2,8,16] = reshape(%y) {shape=(2,8,16)}\n"
        "%f : f32[2,16,8] = permute(%g) {perm=(0,2,1)}",
    )
    after = laid_out(text)
    assert [n.inputs[0] for n in after.nodes if n.op == "relayout"] == ["x"]
    assert after.type_of(after.outputs[0].value).row_major


def test_entries_agree_on_the_layout_of_a_parameter_that_only_one_convolves_with() -> None:
    adds = graph("""
        %w : f32[8,3,3,3] = input param "conv.weight"
        %s : f32[8,3,3,3] = input opt_state "m" "conv.weight"
        %n : f32[8,3,3,3] = add(%w, %s)
        output update "conv.weight" %n
    """)
    after = run_passes(adds, [ChooseLayout(state_layouts([graph(CONV), adds]))])
    assert {i.type.order for i in after.inputs} == {FILTERS}
    assert after.type_of("n").order == FILTERS


def test_constants_are_made_in_the_layout_that_is_read() -> None:
    after = laid_out("""
        %x : f32[2,3,6,6] = input batch "x"
        %w : f32[3,3,1,1] = input param "w"
        %y : f32[2,3,6,6] = conv2d(%x, %w) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
        %i : f32[2,3,6,6] = iota() {shape=(2,3,6,6), axis=1, dtype=f32}
        %z : f32[2,3,6,6] = add(%y, %i)
        %s : f32[3] = reduce_sum(%z) {axes=(0,2,3), keepdims=false}
        output prediction "0" %s
    """)
    assert [n.type.order for n in after.nodes if n.op == "iota"] == [IMAGES]
    assert ops_of(after).count("relayout") == 1


def test_the_invariant_rejects_a_reshape_that_moves_bytes() -> None:
    moved = graph("""
        %x : f32[2,3; 1,0] = input batch "x"
        %y : f32[6] = reshape(%x) {shape=(6,)}
        output prediction "0" %y
    """)
    with pytest.raises(InternalError, match="views-only"):
        verify(moved, [views_only])


def test_a_convolution_has_its_way_before_a_reader_that_flattens() -> None:
    after = laid_out("""
        %c : f32[3,6,1] = input batch "c"
        %w : f32[8,3,3,3] = input param "w"
        %x : f32[2,3,6,6] = broadcast_to(%c) {shape=(2,3,6,6)}
        %f : f32[2,108] = reshape(%x) {shape=(2,108)}
        %y : f32[2,8,4,4] = conv2d(%x, %w) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
        %s : f32[8] = reduce_sum(%y) {axes=(0,2,3), keepdims=false}
        output prediction "0" %f
        output prediction "1" %s
    """)
    assert after.type_of("x").order == IMAGES
    assert [n.inputs[0] for n in after.nodes if n.op == "relayout"] == ["x"]
