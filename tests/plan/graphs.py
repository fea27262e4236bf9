"""Training graphs to plan: random ones, and the smallest ones of each situation."""

from __future__ import annotations

from hypothesis import strategies as st

from pockc.ir import Gradient, Graph, Output, Param, Update
from pockc.passes import parse_passes, run_passes
from tests.strategies import graphs
from tests.support import graph

FINISHING = (
    "",
    "eliminate_dead,reorder,update_in_place",
    "eliminate_dead,choose_layout,fuse,reorder,update_in_place",
)


@st.composite
def training_graphs(draw: st.DrawFn, max_nodes: int = 14) -> Graph:
    """A graph whose parameters get new values: gradients, old values, or those of another."""
    made = draw(graphs(max_nodes=max_nodes))
    outputs = [draw_update(draw, made, o) for o in made.outputs]
    made = made.replace(outputs=tuple(outputs))
    passes = draw(st.sampled_from(FINISHING))
    return run_passes(made, parse_passes(passes)) if passes else made


def draw_update(draw: st.DrawFn, made: Graph, output: Output) -> Output:
    """Make a gradient an update; now and then another value of that type takes its place."""
    if not isinstance(output.role, Gradient):
        return output
    home = made.input_of(Param(output.role.param))
    assert home is not None
    alike = [name for name in made.defs if made.type_of(name) == home.type]
    value = draw(st.sampled_from([output.value, output.value, *alike]))
    return Output(value, Update(output.role.param))


SGD = graph("""
  %x : f32[4,8] = input batch "x"
  %w : f32[8,8] = input param "w"
  %lr : f32[] = input scalar "lr"
  %h : f32[4,8] = matmul(%x, %w)
  %y : f32[4,8] = tanh(%h)
  %t : f32[8,4] = permute(%x) {perm=(1, 0)}
  %g : f32[8,8] = matmul(%t, %y)
  %d : f32[8,8] = mul(%g, %lr)
  %new : f32[8,8] = sub(%w, %d) {inplace=0}
  %loss : f32[] = reduce_sum(%y) {axes=(0, 1), keepdims=false}
  output loss %loss
  output update "w" %new
""")

SWAP = graph("""
  %a : f32[8] = input param "a"
  %b : f32[8] = input param "b"
  output update "a" %b
  output update "b" %a
""")
