"""Costs of a scheme against hand formulas on a small net."""

from __future__ import annotations

import pytest

from pockc.ir import Graph
from pockc.passes.prune_backward import PruneBackward
from pockc.scheme import Scheme, Trained, measure, savings, savings_data, scheme_data
from tests.scheme.models import Builder, Model
from tests.support import graph

N, C, H, K = 4, 8, 16, 2

# Two linear layers C -> H -> K without activation between, with every gradient.
NET = graph(f"""
  %x : f32[{N},{C}] = input batch "x"
  %t : f32[{N},{K}] = input batch "target"
  %w1 : f32[{C},{H}] = input param "a.weight"
  %b1 : f32[{H}] = input param "a.bias"
  %w2 : f32[{H},{K}] = input param "b.weight"
  %h : f32[{N},{H}] = matmul(%x, %w1)
  %g : f32[{N},{H}] = add(%h, %b1)
  %y : f32[{N},{K}] = matmul(%g, %w2)
  %e : f32[{N},{K}] = sub(%y, %t)
  %s : f32[{N},{K}] = mul(%e, %e)
  %loss : f32[] = reduce_sum(%s) {{axes=(0, 1), keepdims=false}}
  %gt : f32[{H},{N}] = permute(%g) {{perm=(1, 0)}}
  %dw2 : f32[{H},{K}] = matmul(%gt, %e)
  %w2t : f32[{K},{H}] = permute(%w2) {{perm=(1, 0)}}
  %dg : f32[{N},{H}] = matmul(%e, %w2t)
  %db1 : f32[{H}] = reduce_sum(%dg) {{axes=(0,), keepdims=false}}
  %xt : f32[{C},{N}] = permute(%x) {{perm=(1, 0)}}
  %dw1 : f32[{C},{H}] = matmul(%xt, %dg)
  output loss %loss
  output gradient "a.weight" %dw1
  output gradient "a.bias" %db1
  output gradient "b.weight" %dw2
""")


def model() -> Model:
    b = Builder()
    b.add("a", "Linear", weight=(C, H), bias=(H,))
    b.add("b", "Linear", weight=(H, K))
    return b.model()


def pruned(*names: str) -> tuple[Graph, Scheme]:
    made = PruneBackward(frozenset(names))(NET)
    return made, Scheme({n: Trained() for n in names})


FORWARD = N * C * H + N * H * K


@pytest.mark.parametrize(
    ("names", "elements", "saved", "backward"),
    [
        (("b.weight",), H * K, N * H + N * K, N * H * K),
        # A bias needs no activation; the error at the end of forward is always saved.
        (("a.bias",), H, N * K, N * H * K),
        (("a.weight",), C * H, N * K, N * H * K + N * C * H),
        (("a.weight", "a.bias", "b.weight"), C * H + H + H * K, N * H + N * K,
         2 * N * H * K + N * C * H),
    ],
)  # fmt: skip
def test_costs_equal_hand_formulas(
    names: tuple[str, ...], elements: int, saved: int, backward: int
) -> None:
    cost = measure(*pruned(*names), model().parameters)
    assert cost.trained_parameters == elements
    assert cost.trained_tensors == len(names)
    assert cost.saved_activation_bytes == 4 * saved
    assert cost.backward_multiply_adds == backward
    assert cost.forward_multiply_adds == FORWARD
    assert cost.optimizer_state_bytes == 0


def test_arithmetic_inside_fused_kernels_counts() -> None:
    fused = graph("""
      %x : f32[4,8] = input batch "x"
      %w : f32[8,16] = input param "w"
      %y : f32[4,16] = fused(%x, %w) {body=graph fused {
        %a : f32[4,8] = input batch "0"
        %b : f32[8,16] = input batch "1"
        %m : f32[4,16] = matmul(%a, %b)
        %n : f32[4,16] = neg(%m)
        output prediction "0" %n
      }}
      output prediction "0" %y
    """)
    cost = measure(fused, Scheme({}), {})
    assert cost.backward_multiply_adds == 4 * 8 * 16  # there is no loss, so no forward pass


def test_savings_stand_beside_full_update() -> None:
    full = measure(*pruned("a.weight", "a.bias", "b.weight"), model().parameters)
    sparse = measure(*pruned("a.bias"), model().parameters)
    lines = {line.what: line for line in savings(sparse, full)}
    assert lines["trained parameters"].share == H / (C * H + H + H * K)
    assert lines["optimizer state"].share == 1.0
    assert [d["what"] for d in savings_data(sparse, full)] == list(lines)


def test_the_trained_tensors_are_told_as_json() -> None:
    scheme = Scheme({"a.weight": Trained((1, (0, 3)), 2.0, None, "update[0] a: all")})
    assert scheme_data(scheme, model().parameters) == [
        {
            "name": "a.weight",
            "kind": "weight",
            "shape": [C, H],
            "trained": 2 * C,
            "axis": 1,
            "channels": 2,
            "lr_scale": 2.0,
            "weight_decay": None,
            "because": "update[0] a: all",
        }
    ]
