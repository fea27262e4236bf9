from __future__ import annotations

import pytest

from pockc.errors import UserError
from pockc.ir import Gradient, Graph
from pockc.passes import run_passes
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.prune_backward import PruneBackward
from tests.passes.nets import CONV, MLP
from tests.support import Golden, graph, ops_of, random_inputs, results, same_results


def prune(text: str, *trainable: str) -> Graph:
    return run_passes(graph(text), [PruneBackward(frozenset(trainable))])


def test_a_frozen_first_layer_needs_no_input_gradient(golden: Golden) -> None:
    after = prune(MLP, "fc2.weight")
    golden.check(str(after))
    assert ops_of(after).count("matmul") == 3
    inputs = random_inputs(graph(MLP))
    expected = results(graph(MLP), inputs)
    for role, value in results(after, inputs).items():
        assert value.tobytes() == expected[role].tobytes()


def test_a_bias_needs_no_product_of_its_layer() -> None:
    after = prune(MLP, "fc1.bias")
    assert {o.role for o in after.outputs if isinstance(o.role, Gradient)} == {
        Gradient("fc1.bias")
    }
    assert ops_of(after).count("matmul") == 3


def test_of_a_convolution_only_the_asked_gradient_stays() -> None:
    after = prune(CONV, "bn.bias")
    assert "conv2d_grad_weight" not in ops_of(after)


def test_nothing_to_prune_gives_the_same_object() -> None:
    full = graph(MLP)
    every = frozenset({"fc1.weight", "fc1.bias", "fc2.weight"})
    assert PruneBackward(every)(full) is full


def test_inputs_stay_because_they_are_the_model() -> None:
    assert prune(MLP).inputs == graph(MLP).inputs


def test_unknown_names_are_reported_together_with_the_choices() -> None:
    with pytest.raises(UserError) as raised:
        prune(MLP, "fc1.wieght", "fc3.bias")
    assert str(raised.value) == (
        "[unknown-parameter] there is no parameter 'fc1.wieght'; did you mean fc1.weight or"
        " fc2.weight?\n"
        "    fix  choose from: fc1.weight, fc1.bias, fc2.weight\n"
        "[unknown-parameter] there is no parameter 'fc3.bias'; did you mean fc1.bias?\n"
        "    fix  choose from: fc1.weight, fc1.bias, fc2.weight"
    )


def test_a_parameter_without_a_gradient_cannot_be_trained() -> None:
    with pytest.raises(UserError, match=r"parameter 'bn.weight' has no gradient"):
        prune(CONV, "bn.weight")


DEAD = """
%x : f32[4] = input batch "x"
%a : f32[4] = exp(%x)
%b : f32[4] = neg(%a)
%c : f32[4] = exp(%a)
%d : f32[4] = neg(%c)
output prediction "0" %b
"""


def test_eliminate_dead_drops_whole_chains(golden: Golden) -> None:
    after = run_passes(graph(DEAD), [EliminateDead()])
    golden.check(str(after))
    same_results(graph(DEAD), after)
    assert EliminateDead()(after) is after
