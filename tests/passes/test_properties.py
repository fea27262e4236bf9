"""What holds for every pass and every graph."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pockc.ir import Gradient, Graph, print_graph
from pockc.ir.parser import parse_graph
from pockc.ir.verify import no_dead_nodes, problems_of
from pockc.passes import Pass, parse_passes, run_passes
from pockc.passes.fuse import Fuse
from pockc.passes.fusion_rules import FusionRules
from pockc.passes.memory import Storages
from pockc.passes.prune_backward import PruneBackward
from pockc.passes.reorder import Reorder
from pockc.passes.slice_channels import SliceChannels
from tests.strategies import graphs
from tests.support import random_inputs, results, same_results

EXACT = (
    "eliminate_dead",
    "share_common",
    "reuse_clamped",
    "recompute",
    "choose_layout",
    "reorder",
    "update_in_place",
)
ROUNDING = ("canonicalize", "fold_constants", "scale_filters")
# A second walk may find another prefix, as that of a smaller batch.
ONCE = ("slice_batch{slice_bytes=16}",)
CHAINS = (
    "choose_layout,fuse",
    "canonicalize,fold_constants,share_common,choose_layout,fuse,reorder,update_in_place",
)
properties = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("text", [*EXACT, *ROUNDING, *ONCE, *CHAINS])
@properties
@given(graph=graphs())
def test_a_pass_keeps_the_meaning(text: str, graph: Graph) -> None:
    after = run_passes(graph, parse_passes(text))
    same_results(graph, after, kind=None if text in EXACT else "rewrite")


@pytest.mark.parametrize("text", [*EXACT, *ROUNDING, *ONCE, *CHAINS])
@properties
@given(graph=graphs(max_nodes=8))
def test_what_a_pass_gives_reads_back_as_text(text: str, graph: Graph) -> None:
    after = run_passes(graph, parse_passes(text))
    assert parse_graph(print_graph(after)) == after


@pytest.mark.parametrize("text", [*EXACT, *ROUNDING, "choose_layout,fuse"])
@properties
@given(graph=graphs())
def test_a_pass_finds_nothing_to_do_in_what_it_gives(text: str, graph: Graph) -> None:
    passes: tuple[Pass, ...] = parse_passes(text)
    after = run_passes(graph, passes)
    assert passes[-1](after) is after


@properties
@given(graph=graphs(), data=st.data())
def test_pruning_keeps_exactly_the_gradients_that_were_asked_for(
    graph: Graph, data: st.DataObject
) -> None:
    every = {o.role.param for o in graph.outputs if isinstance(o.role, Gradient)}
    kept = frozenset(data.draw(st.sets(st.sampled_from(sorted(every)))))
    after = run_passes(graph, [PruneBackward(kept)])
    assert {o.role.param for o in after.outputs if isinstance(o.role, Gradient)} == kept
    assert not problems_of(after, [no_dead_nodes])
    inputs = random_inputs(graph)
    expected = results(graph, inputs)
    for role, value in results(after, inputs).items():
        assert value.tobytes() == expected[role].tobytes()


@properties
@given(graph=graphs())
def test_reorder_permutes_and_never_raises_the_peak(graph: Graph) -> None:
    after = Reorder()(graph)
    storages = Storages(graph)
    assert sorted(n.name for n in after.nodes) == sorted(n.name for n in graph.nodes)
    assert storages.peak_bytes(after.nodes) <= storages.peak_bytes(graph.nodes)


@properties
@given(graph=graphs(), data=st.data())
def test_a_sliced_gradient_is_a_slice_of_the_gradient(
    graph: Graph, data: st.DataObject
) -> None:
    gradients = {o.role: o.value for o in graph.outputs if isinstance(o.role, Gradient)}
    able = [r for r, v in gradients.items() if graph.type_of(v).rank]
    if not able:
        return
    role = data.draw(st.sampled_from(able))
    shape = graph.type_of(gradients[role]).shape
    axis = data.draw(st.integers(0, len(shape) - 1))
    indices = tuple(sorted(data.draw(st.sets(st.integers(0, shape[axis] - 1), min_size=1))))
    after = run_passes(graph, [SliceChannels(((role.param, (axis, indices)),))])
    inputs = random_inputs(graph)
    whole = results(graph, inputs)[role]
    part = results(after, inputs)[role]
    assert part.tobytes() == whole.take(indices, axis).tobytes()


@properties
@given(graph=graphs(max_nodes=16))
def test_equal_kernels_have_equal_bodies_and_no_names_of_values(graph: Graph) -> None:
    after = run_passes(graph, [*parse_passes("choose_layout"), Fuse(FusionRules())])
    for node in after.nodes:
        if node.op == "fused":
            names = list(node.attrs["body"].defs)
            assert all(re.fullmatch(r"[it]\d+", name) for name in names)
