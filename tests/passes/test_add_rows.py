"""`add_rows`: an embedding's gradient is added where the batch has touched it."""

from __future__ import annotations

import pytest

from pockc.passes import run_passes
from pockc.passes.add_rows import AddRows
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.reorder import Reorder
from pockc.passes.update_in_place import UpdateInPlace
from tests.support import Golden, graph, ops_of, same_results

SGD = """
%w : f32[50,4] = input param "w"
%ids : i64[2,3] = input batch "ids"
%dy : f32[2,3,4] = input batch "dy"
%lr : f32[] = input scalar "lr"
%x : f32[2,3,4] = take(%w, %ids) {axis=0}
%e : f32[2,3,4] = mul(%x, %dy)
%g : f32[50,4] = take_grad(%e, %ids) {axis=0, size=50}
%d : f32[50,4] = mul(%lr, %g)
%w2 : f32[50,4] = sub(%w, %d)
output prediction "0" %x
output update "w" %w2
"""
SUM = """
%s : f32[50,4] = input opt_state "grad_sum" "w"
%ids : i64[2,3] = input batch "ids"
%dy : f32[2,3,4] = input batch "dy"
%g : f32[50,4] = take_grad(%dy, %ids) {axis=0, size=50}
%t : f32[50,4] = add(%g, %s)
output state_update "grad_sum" "w" %t
"""


def test_rows_are_added_to_the_weights(golden: Golden) -> None:
    after = run_passes(graph(SGD), [AddRows()])
    golden.check(str(after))
    same_results(graph(SGD), after)
    assert AddRows()(after) is after


def test_they_are_added_in_place_after_the_weights_were_read() -> None:
    after = run_passes(graph(SGD), [AddRows(), ChooseLayout(), Reorder(), UpdateInPlace()])
    (node,) = (n for n in after.nodes if n.op == "index_add")
    assert node.attrs["inplace"] == 0
    assert after.nodes[-1] is node
    same_results(graph(SGD), after)


def test_rows_are_added_to_the_sum_of_micro_batches() -> None:
    after = run_passes(graph(SUM), [AddRows()])
    assert ops_of(after) == ["index_add"]
    same_results(graph(SUM), after)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("output prediction", 'output prediction "1" %g\noutput prediction'),  # another reader
        ("sub(%w, %d)", "sub(%d, %w)"),
        (
            'input scalar "lr"',
            'input batch "lr"\n%r : f32[50,4] = broadcast_to(%lr) {shape=(50,4)}',
        ),
        ('output update "w" %w2', 'output prediction "2" %w2'),  # nothing is renewed
        ('%w : f32[50,4] = input param "w"', '%w : f32[50,4] = input param "v"'),
    ],
)
def test_what_needs_the_whole_gradient_keeps_it(old: str, new: str) -> None:
    text = SGD.replace(old, new)
    assert text != SGD
    text = text.replace("mul(%lr, %g)", "mul(%r, %g)") if "%r :" in text else text
    before = graph(text)
    assert AddRows()(before) is before


def test_a_table_that_is_smaller_than_what_is_added_is_left() -> None:
    before = graph(SGD.replace("50", "5"))
    assert AddRows()(before) is before
