from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pockc.ir import Graph
from pockc.ir.graph import Source
from pockc.ir.source_text import read_sources
from pockc.ir.verify import no_dead_nodes, problems_of
from pockc.passes import run_passes
from pockc.passes.memory import Storages
from pockc.passes.recompute_blocks import RecomputeBlocks
from pockc.passes.reorder import Reorder
from tests.strategies import graphs
from tests.support import Golden, graph, ops_of, same_results

properties = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Two blocks, forward and, more or less, backward; both keep what they make for it.
TWO_BLOCKS = """graph t {
  %w0 : f32[8,8] = input param "blocks.0.weight"
  %w1 : f32[8,8] = input param "blocks.1.weight"
  %b0 : f32[8] = input param "blocks.0.bias"
  %x : f32[32,8] = input batch "x"
  %xb : f32[32,8] = add(%x, %b0)  # [blocks.0] model.py:1 in Block.forward: x + b
  %a0 : f32[32,8] = tanh(%xb)  # [blocks.0] model.py:1 in Block.forward: x.tanh()
  %u0 : f32[32,8] = sin(%a0)  # [blocks.0] model.py:2 in Block.forward: x.sin()
  %s0 : f32[32,8] = mul(%u0, %a0)  # [blocks.0] model.py:3 in Block.forward: x.sin() * x
  %y0 : f32[32,8] = matmul(%s0, %w0)  # [blocks.0.fc] model.py:3 in Linear.forward: x @ w
  %a1 : f32[32,8] = tanh(%y0)  # [blocks.1] model.py:1 in Block.forward: x.tanh()
  %s1 : f32[32,8] = sin(%a1)  # [blocks.1] model.py:2 in Block.forward: x.sin()
  %y1 : f32[32,8] = matmul(%s1, %w1)  # [blocks.1.fc] model.py:3 in Linear.forward: x @ w
  %q : f32[32,8] = mul(%y1, %y1)  # [head] model.py:9 in Head.forward: y * y
  %loss : f32[] = reduce_sum(%q) {axes=(0, 1), keepdims=false}  # [head] model.py:9: sum()
  %g : f32[32,8] = add(%y1, %y1)
  %s1t : f32[8,32; 1,0] = permute(%s1) {perm=(1, 0)}
  %dw1 : f32[8,8] = matmul(%s1t, %g)
  %w1t : f32[8,8; 1,0] = permute(%w1) {perm=(1, 0)}
  %ds1 : f32[32,8] = matmul(%g, %w1t)
  %c1 : f32[32,8] = cos(%a1)
  %da1 : f32[32,8] = mul(%ds1, %c1)
  %aa1 : f32[32,8] = mul(%a1, %a1)
  %dy0 : f32[32,8] = mul(%da1, %aa1)
  %s0t : f32[8,32; 1,0] = permute(%s0) {perm=(1, 0)}
  %dw0 : f32[8,8] = matmul(%s0t, %dy0)
  %w0t : f32[8,8; 1,0] = permute(%w0) {perm=(1, 0)}
  %ds0 : f32[32,8] = matmul(%dy0, %w0t)
  %du0 : f32[32,8] = mul(%ds0, %u0)
  %da0 : f32[32,8] = mul(%du0, %a0)
  %db0 : f32[8] = reduce_sum(%da0) {axes=(0,), keepdims=false}
  output loss %loss
  output gradient "blocks.0.weight" %dw0
  output gradient "blocks.0.bias" %db0
  output gradient "blocks.1.weight" %dw1
}"""


def sourced(text: str) -> Graph:
    """Return the graph of a text whose nodes know the modules in its comments."""
    made, sources = graph(text), read_sources(text)
    nodes = tuple(replace(n, source=sources.get(n.name)) for n in made.nodes)
    return made.replace(nodes=nodes)


def peak(of: Graph) -> int:
    return Storages(of).peak_bytes(Reorder()(of).nodes)


def test_a_block_is_made_again_from_what_goes_into_it(golden: Golden) -> None:
    before = sourced(TWO_BLOCKS)
    after = run_passes(before, [RecomputeBlocks(("blocks.0",))])
    golden.check(str(after))
    same_results(before, after)
    assert ops_of(after).count("tanh") == 3
    assert peak(after) < peak(before)


def test_all_blocks_keep_their_inputs_only() -> None:
    before = sourced(TWO_BLOCKS)
    after = run_passes(before, [RecomputeBlocks(("blocks.0", "blocks.1"))])
    same_results(before, after)
    forward = before.nodes[:10]
    read = {i for n in after.nodes[10:] for i in n.inputs} & {n.name for n in forward}
    # The input of a block, and what the loss is made of.
    assert read == {"y0", "y1"}


def test_a_module_that_keeps_nothing_and_an_inference_are_left_as_they_are() -> None:
    before = sourced(TWO_BLOCKS)
    assert RecomputeBlocks(("head",))(before) is before
    # A prefix of a name is no module around it.
    assert RecomputeBlocks(("block",))(before) is before
    inference = before.replace(outputs=before.outputs[:1])
    assert RecomputeBlocks(("blocks.1",))(inference) is inference


def test_a_value_that_the_rest_of_the_model_reads_is_kept() -> None:
    text = TWO_BLOCKS.replace("mul(%y1, %y1)", "mul(%y1, %a1)", 1)
    before = sourced(text)
    after = run_passes(before, [RecomputeBlocks(("blocks.1",))])
    same_results(before, after)
    assert ops_of(after).count("tanh") == ops_of(before).count("tanh")
    assert ops_of(after).count("sin") == ops_of(before).count("sin") + 1


def test_a_repetition_of_another_value_would_be_noticed() -> None:
    before = sourced(TWO_BLOCKS)
    after = run_passes(before, [RecomputeBlocks(("blocks.1",))])
    again = next(n for n in reversed(after.nodes) if n.op == "tanh")
    wrong = after.replace(
        nodes=tuple(replace(n, op="sin") if n is again else n for n in after.nodes)
    )
    try:
        same_results(before, wrong)
    except AssertionError:
        return
    raise AssertionError("a wrong repetition passed for a right one")


@st.composite
def modular(draw: st.DrawFn) -> Graph:
    """Return a random graph whose nodes belong to three modules, or to none."""
    made = draw(graphs())
    names = ("", "a", "b", "c")
    modules = [draw(st.sampled_from(names)) for _ in made.nodes]
    nodes = [
        replace(n, source=Source("model.py", 1, "", "", m) if m else None)
        for n, m in zip(made.nodes, modules, strict=True)
    ]
    return made.replace(nodes=tuple(nodes))


@properties
@given(before=modular(), chosen=st.sets(st.sampled_from(("a", "b", "c")), min_size=1))
def test_the_results_are_the_same_bit_for_bit(before: Graph, chosen: set[str]) -> None:
    step = RecomputeBlocks(tuple(sorted(chosen)))
    after = run_passes(before, [step])
    same_results(before, after)
    assert after is before or not problems_of(after, [no_dead_nodes])


@properties
@given(before=modular())
def test_what_other_modules_make_is_never_made_again(before: Graph) -> None:
    after = run_passes(before, [RecomputeBlocks(("a",))])
    known = {n.name for n in before.nodes}
    added = [n for n in after.nodes if n.name not in known]
    assert all(n.source is None or n.source.module == "a" for n in added)
