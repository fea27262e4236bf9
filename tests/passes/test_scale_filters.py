from __future__ import annotations

import pytest

from pockc.ir import Graph
from pockc.passes import parse_passes, run_passes
from pockc.passes.scale_filters import ScaleFilters
from tests.passes.nets import CONV
from tests.support import Golden, graph, ops_of, same_results

# The batch norm's factor is trained as well: its gradient wants the normalised image.
TRAINED_FACTOR = CONV.replace(
    "output loss %loss",
    """%dan : f32[2,8,6,6] = mul(%da, %n)
%gg : f32[8] = reduce_sum(%dan) {axes=(0,2,3), keepdims=false}
output loss %loss
output gradient "bn.weight" %gg""",
)
FIXED = (
    '%mean : f32[8] = input buffer "bn.running_mean"',
    '%var : f32[8] = input buffer "bn.running_var"',
)


def images_elementwise(after: Graph) -> list[str]:
    """Return the elementwise ops on whole images that do arithmetic with factors or terms."""
    shape = (2, 8, 6, 6)
    return [n.op for n in after.nodes if n.op in ("mul", "sub") and n.type.shape == shape]


def test_factors_leave_the_images(golden: Golden) -> None:
    after = run_passes(graph(TRAINED_FACTOR), [ScaleFilters()])
    golden.check(str(after))
    same_results(graph(TRAINED_FACTOR), after, kind="rewrite")
    assert images_elementwise(after) == ["mul"]
    assert ScaleFilters()(after) is after


def test_the_result_of_the_convolution_is_read_once() -> None:
    after = run_passes(graph(TRAINED_FACTOR), parse_passes("scale_filters,share_common"))
    assert [n.op for n in after.users["y"]] == ["mul"]
    assert ops_of(after).count("conv2d_grad_weight") == 2


def test_a_frozen_factor_leaves_the_gradients_as_well() -> None:
    after = run_passes(graph(CONV), [ScaleFilters()])
    same_results(graph(CONV), after, kind="rewrite")
    assert images_elementwise(after) == ["mul"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Another reader of the normalised image needs it all the same.
        ("output loss %loss", 'output loss %loss\noutput prediction "0" %n'),
        # The factor depends on the batch.
        (FIXED[1], '%var : f32[8] = input batch "v"'),
    ],
)
def test_what_has_other_readers_or_varies_stays(old: str, new: str) -> None:
    before = graph(TRAINED_FACTOR.replace(old, new))
    after = run_passes(before, [ScaleFilters()])
    same_results(before, after, kind="rewrite")
    assert after.node("n") is not None


def test_filters_larger_than_the_image_are_not_scaled() -> None:
    large = TRAINED_FACTOR.replace("2,3,6,6", "1,3,2,2").replace("2,8,6,6", "1,8,2,2")
    large = large.replace("2,4,6,6", "1,4,2,2")
    before = graph(large)
    after = run_passes(before, [ScaleFilters()])
    same_results(before, after, kind="rewrite")
    gradient = next(n for n in after.nodes if n.op == "conv2d_grad_input" and n.name == "dx")
    assert gradient.inputs == ("dy", "w")


def test_the_gradient_of_a_factor_stays_where_the_filters_are_frozen() -> None:
    frozen = TRAINED_FACTOR.replace('output gradient "conv.weight" %gw\n', "")
    frozen = "\n".join(line for line in frozen.splitlines() if not line.startswith("%gw "))
    before = graph(frozen)
    after = run_passes(before, [ScaleFilters()])
    same_results(before, after, kind="rewrite")
    assert ops_of(after).count("conv2d_grad_weight") == 1


def test_a_wrong_factor_would_be_seen() -> None:
    right = graph(TRAINED_FACTOR)
    wrong = TRAINED_FACTOR.replace("mul(%dn, %r4)", "mul(%dn, %g4)")
    with pytest.raises(AssertionError):
        same_results(right, graph(wrong), kind="rewrite")
