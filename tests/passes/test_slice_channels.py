# ruff: noqa: E501  graph text is as long as it is
from __future__ import annotations

import pytest

from pockc.errors import UserError
from pockc.ir import DType, Gradient, Graph
from pockc.ops.base import flops_of
from pockc.passes import run_passes
from pockc.passes.prune_backward import PruneBackward
from pockc.passes.selecting import Selection
from pockc.passes.slice_channels import SliceChannels
from tests.passes.nets import CONV, MLP
from tests.support import Golden, close, graph, ops_of, random_inputs, results
from tests.tolerances import TABLE


def sliced(before: Graph, **selections: Selection) -> Graph:
    chosen = tuple((k.replace("_", "."), s) for k, s in selections.items())
    kept = PruneBackward(frozenset(p for p, _ in chosen))
    return run_passes(before, [kept, SliceChannels(chosen)])


def assert_sliced(before: Graph, after: Graph, param: str, selection: Selection) -> None:
    inputs = random_inputs(before, below=5)
    whole = results(before, inputs)[Gradient(param)]
    part = results(after, inputs)[Gradient(param)]
    axis, indices = selection
    close(part, whole.take(indices, axis), TABLE[DType.F32, "rewrite"])


def flops(of: Graph, op: str) -> int:
    return sum(flops_of(of, n) for n in of.nodes if n.op == op)


def test_input_channels_select_from_the_activation(golden: Golden) -> None:
    after = sliced(graph(MLP), fc2_weight=(0, (1, 2, 3)))
    golden.check(str(after))
    assert_sliced(graph(MLP), after, "fc2.weight", (0, (1, 2, 3)))


def test_output_channels_select_from_the_gradient_behind() -> None:
    selection = (1, (0, 3, 4))
    after = sliced(graph(MLP), fc1_weight=selection, fc1_bias=(0, (0, 3, 4)))
    assert_sliced(graph(MLP), after, "fc1.weight", selection)
    assert_sliced(graph(MLP), after, "fc1.bias", (0, (0, 3, 4)))
    # The gradient behind is selected from once for both; nothing of its full width is left.
    assert ops_of(after).count("reduce_sum") == 2
    assert not any(n.type.shape == (5, 8) for n in after.nodes if n.name in ("dz", "da"))


@pytest.mark.parametrize("selection", [(0, (1, 5)), (1, (0, 2)), (2, (1,)), (3, (0, 2))])
def test_filters_are_selected_before_the_convolution(selection: Selection) -> None:
    before = run_passes(graph(CONV), [PruneBackward(frozenset({"conv.weight"}))])
    after = sliced(graph(CONV), conv_weight=selection)
    assert_sliced(graph(CONV), after, "conv.weight", selection)
    if selection[0] < 2:
        size = (8, 3)[selection[0]]
        full, part = (flops(g, "conv2d_grad_weight") for g in (before, after))
        assert part * size == full * len(selection[1])


DEPTHWISE = """
%w : f32[6,1,3,3] = input param "w"
%x : f32[2,6,5,5] = input batch "x"
%dy : f32[2,6,5,5] = input batch "dy"
%g : f32[6,1,3,3] = conv2d_grad_weight(%x, %dy) {weight_shape=(6,1,3,3), stride=(1,1), padding=(1,1), dilation=(1,1), groups=6}
output gradient "w" %g
"""
GROUPED = (
    DEPTHWISE.replace("[6,1,3,3]", "[6,2,3,3]")
    .replace("(6,1,3,3)", "(6,2,3,3)")
    .replace("groups=6", "groups=3")
)


def test_depthwise_filters_take_their_own_channels_only() -> None:
    after = sliced(graph(DEPTHWISE), w=(0, (0, 2, 5)))
    assert_sliced(graph(DEPTHWISE), after, "w", (0, (0, 2, 5)))
    assert flops(after, "conv2d_grad_weight") * 2 == flops(
        graph(DEPTHWISE), "conv2d_grad_weight"
    )


@pytest.mark.parametrize(("indices", "smaller"), [((2, 3), True), ((1, 2), False)])
def test_grouped_filters_are_selected_by_whole_groups(
    indices: tuple[int, ...], smaller: bool
) -> None:
    after = sliced(graph(GROUPED), w=(0, indices))
    assert_sliced(graph(GROUPED), after, "w", (0, indices))
    full, part = (flops(g, "conv2d_grad_weight") for g in (graph(GROUPED), after))
    assert (part < full) == smaller


EMBEDDING = """
%w : f32[7,4] = input param "w"
%i : i64[2,3] = input batch "i"
%dy : f32[2,3,4] = input batch "dy"
%g : f32[7,4] = take_grad(%dy, %i) {axis=0, size=7}
output gradient "w" %g
"""


@pytest.mark.parametrize("selection", [(0, (1, 4)), (1, (0, 2, 3))])
def test_an_embedding_is_selected_by_columns_before_and_by_rows_after(
    selection: Selection,
) -> None:
    after = sliced(graph(EMBEDDING), w=selection)
    assert_sliced(graph(EMBEDDING), after, "w", selection)
    order = ops_of(after)
    columns_first = order.index("take_grad") == len(order) - 1
    assert columns_first == (selection[0] == 1)


def test_everything_selected_is_nothing_to_do() -> None:
    before = run_passes(graph(MLP), [PruneBackward(frozenset({"fc2.weight"}))])
    assert SliceChannels((("fc2.weight", (1, (0, 1, 2, 3))),))(before) is before


def test_wrong_selections_are_reported_together() -> None:
    wrong = SliceChannels(
        (("fc3.weight", (0, (1,))), ("fc1.weight", (2, (0,))), ("fc2.weight", (0, (7, 8))))
    )
    with pytest.raises(UserError) as raised:
        wrong(graph(MLP))
    assert str(raised.value) == (
        "[unknown-parameter] parameter 'fc3.weight' has no gradient in this graph; did you mean"
        " fc2.weight or fc1.weight?\n"
        "    fix  choose from: fc1.weight, fc1.bias, fc2.weight\n"
        "[bad-selection] channels 0 along axis 2 of 'fc1.weight' : f32[6,8]\n"
        "    fix  give increasing indices within the axis\n"
        "[bad-selection] channels 7, 8 along axis 0 of 'fc2.weight' : f32[8,4]\n"
        "    fix  give increasing indices within the axis"
    )


CARRIED = """
%w : f32[4,6,3,3] = input param "w"
%dy : f32[2,4,5,5] = input batch "dy"
%dx : f32[2,6,5,5] = conv2d_grad_input(%dy, %w) {input_shape=(2,6,5,5), stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%y : f32[2,4,5,5] = conv2d(%dx, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%g : f32[6] = reduce_sum(%dx) {axes=(0,2,3), keepdims=false}
output gradient "b" %g
"""


def test_a_gradient_that_is_carried_back_is_made_of_the_selected_channels() -> None:
    after = sliced(graph(CARRIED), b=(0, (1, 4)))
    assert_sliced(graph(CARRIED), after, "b", (0, (1, 4)))
    full, part = (flops(g, "conv2d_grad_input") for g in (graph(CARRIED), after))
    assert part * 3 == full


def test_images_are_made_of_the_selected_filters() -> None:
    text = CARRIED.replace("reduce_sum(%dx)", "reduce_sum(%y)").replace(
        "%g : f32[6]", "%g : f32[4]"
    )
    after = sliced(graph(text), b=(0, (0, 3)))
    assert_sliced(graph(text), after, "b", (0, (0, 3)))
    assert flops(after, "conv2d") * 2 == flops(graph(text), "conv2d")
