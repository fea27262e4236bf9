from __future__ import annotations

import itertools

import pytest

from pockc.ir import Graph
from pockc.passes import run_passes
from pockc.passes.memory import Storages
from pockc.passes.recompute import FAR_CONTRACTIONS, Recompute
from tests.support import Golden, graph, ops_of, same_results

STEP = Recompute(least_bytes=1)


def chain(count: int, value: str, end: str) -> str:
    """Return products, one after the other, that keep a value's readers apart."""
    names = [value, *(f"p{i}" for i in range(count - 1)), end]
    return "\n".join(
        f"%{after} : f32[64,64] = matmul(%{before}, %w)"
        for before, after in itertools.pairwise(names)
    )


# y = tanh(h) is read by a product, and by the gradient of that product's weight far behind it.
ACTIVATION = f"""
%w : f32[64,64] = input param "w"
%x : f32[64,64] = input batch "x"
%h : f32[64,64] = matmul(%x, %w)
%y : f32[64,64] = tanh(%h)
%z : f32[64,64] = matmul(%y, %w)
{chain(FAR_CONTRACTIONS, "z", "g")}
%yt : f32[64,64; 1,0] = permute(%y) {{perm=(1,0)}}
%dw : f32[64,64] = matmul(%yt, %g)
%dh : f32[64,64] = mul(%h, %g)
output gradient "w" %dw
output prediction "0" %dh
"""

# Weights of attention, from queries and keys that backward reads as well.
ATTENTION = f"""
%w : f32[64,64] = input param "w"
%v : f32[4,16,64] = input batch "v"
%x : f32[4,16,8] = input batch "x"
%q : f32[4,16,8] = tanh(%x)
%k : f32[4,16,8] = sin(%x)
%kt : f32[4,8,16; 0,2,1] = permute(%k) {{perm=(0,2,1)}}
%s : f32[4,16,16] = matmul(%q, %kt)
%e : f32[4,16,16] = exp(%s)
%n : f32[4,16,1] = reduce_sum(%e) {{axes=(2,), keepdims=true}}
%p : f32[4,16,16] = div(%e, %n)
%o : f32[4,16,64] = matmul(%p, %v)
%z : f32[64,64] = reshape(%o) {{shape=(64,64)}}
{chain(FAR_CONTRACTIONS, "z", "g")}
%do : f32[4,16,64] = reshape(%g) {{shape=(4,16,64)}}
%dv : f32[4,16,64] = matmul(%p, %do)
%dp : f32[4,16,16] = mul(%p, %p)
%dq : f32[4,16,8] = matmul(%dp, %k)
%dk : f32[4,16,8] = matmul(%dp, %q)
output prediction "0" %dv
output prediction "1" %dq
output prediction "2" %dk
"""


def last_use(after: Graph, value: str) -> int:
    """Return the place of the last node that reads a value or a view of it."""
    storages = Storages(after)
    at = {n.name: i for i, n in enumerate(after.nodes)}
    return max(at[r] for r in storages.readers[storages.root[value]])


def test_an_activation_is_made_again_for_the_weight_gradient(golden: Golden) -> None:
    after = run_passes(graph(ACTIVATION), [STEP])
    golden.check(str(after))
    same_results(graph(ACTIVATION), after)
    assert ops_of(after).count("tanh") == 2
    assert last_use(after, "y") < [n.name for n in after.nodes].index("g")
    assert STEP(after) is after


def test_the_weights_of_attention_are_made_again_from_queries_and_keys() -> None:
    after = run_passes(graph(ATTENTION), [STEP])
    same_results(graph(ATTENTION), after)
    assert ops_of(after).count("exp") == 2
    assert last_use(after, "p") < [n.name for n in after.nodes].index("g")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # What it is made from would have to be kept instead.
        ("mul(%h, %g)", "mul(%x, %g)"),
        # The reader does no more work than making the value again is.
        ("matmul(%yt, %g)", "mul(%yt, %g)"),
        # The value is needed to the end.
        ('"0" %dh', '"0" %dh\noutput prediction "1" %y'),
        # The readers are near each other.
        (chain(FAR_CONTRACTIONS, "z", "g"), chain(FAR_CONTRACTIONS - 2, "z", "g")),
        # It is a product itself, of much work.
        ("tanh(%h)", "matmul(%h, %w)"),
    ],
)
def test_what_is_dear_or_saves_nothing_is_kept(old: str, new: str) -> None:
    before = graph(ACTIVATION.replace(old, new))
    assert STEP(before) is before


def test_small_values_are_kept() -> None:
    before = graph(ACTIVATION)
    assert Recompute(least_bytes=1 << 20)(before) is before


def test_a_value_made_again_from_something_else_would_be_seen() -> None:
    after = run_passes(graph(ACTIVATION), [STEP])
    text = str(after).replace("%y_1 : f32[64,64] = tanh(%h)", "%y_1 : f32[64,64] = tanh(%z)")
    assert text != str(after)
    with pytest.raises(AssertionError):
        same_results(graph(ACTIVATION), graph(text))
