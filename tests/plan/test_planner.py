"""Plans: what lies where, run on real bytes against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from pockc.errors import InternalError
from pockc.ir import DType, Graph, Loss, OptState, Param, Prediction, Scalar, Update
from pockc.passes import parse_passes, run_passes
from pockc.plan import (
    ALIGN_BYTES,
    COPY_KERNEL,
    Constant,
    Place,
    Plan,
    Space,
    make_plan,
    verify_plan,
)
from pockc.plan.names import tensor_name
from tests.plan.graphs import SGD, SWAP, training_graphs
from tests.plan.machine import Machine, entry_of
from tests.support import close, graph, random_inputs, results
from tests.tolerances import tolerance

properties = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def planned(made: Graph, **workspaces: tuple[int, ...]) -> Plan:
    entry = entry_of(made, workspaces)
    plan = make_plan([entry])
    verify_plan([entry], plan)
    return plan


def kernels(plan: Plan) -> list[str]:
    return [s.kernel for s in plan.entries[0].steps]


def output_place(plan: Plan, role: object) -> Place:
    return next(p.place for p in plan.entries[0].outputs if p.role == role)


def input_place(plan: Plan, role: object) -> Place:
    return next(p.place for p in plan.entries[0].inputs if p.role == role)


@properties
@given(made=training_graphs())
def test_a_planned_step_computes_what_the_graph_means(made: Graph) -> None:
    entry = entry_of(made)
    plan = make_plan([entry])
    verify_plan([entry], plan)
    inputs = random_inputs(made)
    found, expected = Machine(plan).run(entry, inputs), results(made, inputs)
    for role, array in expected.items():
        # NumPy sums in another order where an array lies in memory in another order.
        close(found[role], array, tolerance(DType.F32, "rewrite"))


@properties
@given(made=training_graphs())
def test_state_without_an_update_keeps_its_bits(made: Graph) -> None:
    entry = entry_of(made)
    machine = Machine(make_plan([entry]))
    inputs = random_inputs(made)
    machine.run(entry, inputs)
    updated = {o.role.param for o in made.outputs if isinstance(o.role, Update)}
    for port in machine.plan.entries[0].inputs:
        if isinstance(port.role, Param) and port.role.name not in updated:
            np.testing.assert_array_equal(
                machine.read(port.place, port.type), inputs[port.role]
            )


@properties
@given(made=training_graphs())
def test_equal_input_gives_an_equal_plan_within_its_bounds(made: Graph) -> None:
    plan = make_plan([entry_of(made)])
    assert plan == make_plan([entry_of(made)])
    entry = plan.entries[0]
    assert entry.lower_bound_bytes <= entry.arena_bytes
    assert entry.arena_bytes % ALIGN_BYTES == 0


def test_an_update_in_place_costs_no_arena_and_no_copy() -> None:
    plan = planned(SGD)
    assert kernels(plan) == ["k_matmul", "k_tanh", "k_permute", "k_matmul", "k_mul", "k_sub",
                             "k_reduce_sum"]  # fmt: skip
    assert output_place(plan, Update("w")) == input_place(plan, Param("w"))
    assert plan.entries[0].steps[5].args[0].space is Space.STATE


def test_a_new_value_is_written_home_when_the_old_one_is_done_with() -> None:
    plan = planned(
        graph("""
          %w : f32[64] = input param "w"
          %lr : f32[] = input scalar "lr"
          %d : f32[64] = mul(%w, %lr)
          %new : f32[64] = neg(%d)
          output update "w" %new
        """)
    )
    assert kernels(plan) == ["k_mul", "k_neg"]
    assert plan.entries[0].steps[1].args[1] == input_place(plan, Param("w"))
    assert plan.arena_bytes == 256  # %d alone


def test_a_new_value_is_copied_home_after_the_last_reader_of_the_old_one() -> None:
    plan = planned(
        graph("""
          %w : f32[64] = input param "w"
          %new : f32[64] = neg(%w)
          %y : f32[64] = tanh(%w)
          %z : f32[64] = exp(%y)
          output update "w" %new
          output prediction "0" %z
        """)
    )
    assert kernels(plan) == ["k_neg", "k_tanh", COPY_KERNEL, "k_exp"]


def test_tensors_can_trade_places() -> None:
    entry = entry_of(SWAP)
    plan = make_plan([entry])
    verify_plan([entry], plan)
    a, b = np.arange(8, dtype=np.float32), np.ones(8, np.float32)
    found = Machine(plan).run(entry, {Param("a"): a, Param("b"): b})
    np.testing.assert_array_equal(found[Update("a")], b)
    np.testing.assert_array_equal(found[Update("b")], a)


def test_an_output_keeps_the_old_value_of_an_updated_tensor() -> None:
    made = graph("""
      %w : f32[8] = input param "w"
      %new : f32[8] = neg(%w)
      output update "w" %new
      output prediction "0" %w
    """)
    entry = entry_of(made)
    found = Machine(make_plan([entry])).run(entry, {Param("w"): np.full(8, 3, np.float32)})
    assert found[Prediction("0")][0] == 3
    assert found[Update("w")][0] == -3


def test_literals_lie_in_the_state_once() -> None:
    plan = planned(
        graph("""
          %c : f32[2] = literal() {value=literal f32[2] [1.0, 2.0]}
          %d : f32[2] = literal() {value=literal f32[2] [1.0, 2.0]}
          %e : f32[2] = literal() {value=literal f32[2] [3.0, 2.0]}
          %s : f32[2] = add(%c, %d)
          %t : f32[2] = add(%s, %e)
          output prediction "0" %t
        """)
    )
    assert [type(s.key) for s in plan.state.slots] == [Constant, Constant]
    assert kernels(plan) == ["k_add", "k_add"]


def test_scalars_have_places_of_their_own() -> None:
    place = input_place(planned(SGD), Scalar("lr"))
    assert (place.space, place.offset_bytes, place.nbytes) == (Space.SCALAR, 0, 4)


def test_a_workspace_lives_for_one_step() -> None:
    plan = planned(SGD, h=(4096,), g=(4096, 64))
    first, second = plan.entries[0].steps[0].args[3], plan.entries[0].steps[3].args[3]
    assert first.nbytes == second.nbytes == 4096
    assert plan.entries[0].arena_bytes < 2 * 4096


def test_entries_share_the_state_and_one_arena() -> None:
    predict = graph("""
      %x : f32[4,8] = input batch "x"
      %w : f32[8,8] = input param "w"
      %h : f32[4,8] = matmul(%x, %w)
      output prediction "0" %h
    """)
    entries = [entry_of(SGD, name="train_step"), entry_of(predict, name="predict")]
    plan = make_plan(entries)
    verify_plan(entries, plan)
    assert [s.key for s in plan.state.slots] == [Param("w")]
    assert plan.arena_bytes == max(e.arena_bytes for e in plan.entries)
    machine = Machine(plan)
    inputs = random_inputs(SGD)
    machine.run(entries[0], inputs)
    after = results(SGD, inputs)[Update("w")]
    x = next(v for r, v in inputs.items() if r.keyword == "batch")
    given = {r: v for r, v in inputs.items() if r.keyword == "batch"}
    np.testing.assert_array_equal(machine.run(entries[1], given)[Prediction("0")], x @ after)


def test_entries_that_disagree_about_a_tensor_are_a_defect() -> None:
    other = graph("""
      %w : f32[4,16] = input param "w"
      output prediction "0" %w
    """)
    with pytest.raises(InternalError, match="plan-state-type"):
        make_plan([entry_of(SGD, name="a"), entry_of(other, name="b")])


def test_a_node_that_nothing_computes_is_a_defect() -> None:
    entry = entry_of(SGD)
    lacking = type(entry)("step", SGD, {k: c for k, c in entry.calls.items() if k != "d"})
    with pytest.raises(InternalError, match=r"nothing computes %d"):
        make_plan([lacking])


def test_an_update_of_another_layout_is_a_defect() -> None:
    made = graph("""
      %w : f32[2,3] = input param "w"
      %r : f32[2,3; 1,0] = relayout(%w) {layout=(1, 0)}
      output update "w" %r
    """)
    with pytest.raises(InternalError, match="plan-update-type"):
        make_plan([entry_of(made)])


def test_empty_tensors_and_entries_without_steps_have_plans() -> None:
    made = graph("""
      %x : f32[0,4] = input batch "x"
      %m : f32[3] = input opt_state "m" "w"
      %y : f32[0,4] = neg(%x)
      output prediction "0" %y
    """)
    plan = planned(made)
    assert plan.arena_bytes == 0
    assert plan.state.slot(OptState("m", "w")) is not None
    assert Loss() not in [p.role for p in plan.entries[0].outputs]


def test_one_literal_in_two_layouts_is_two_tensors_with_two_names() -> None:
    digest = "0123"
    names = [tensor_name(Constant(digest)), tensor_name(Constant(digest, (1, 0)))]
    assert names == ["constant.0123", "constant.0123.1_0"]


def test_what_no_step_writes_is_frozen() -> None:
    made = graph("""
      %x : f32[4,8] = input batch "x"
      %w : f32[8,8] = input param "w"
      %v : f32[8,8] = input param "v"
      %m : f32[8,8] = input buffer "m"
      %k : f32[8,8] = input opt_state "k" "v"
      %a : f32[8,8] = add(%w, %m)
      %b : f32[8,8] = add(%a, %v)
      %c : f32[8,8] = add(%b, %k)
      output update "v" %c
    """)
    state = planned(made).state
    places = {tensor_name(s.key): str(s.place) for s in state.slots}
    assert places == {
        "w": "frozen[0:256]",
        "v": "state[0:256]",
        "m": "frozen[256:512]",
        "optimizer.k.v": "state[256:512]",  # the optimizer's, though nothing writes it
    }
    assert (state.nbytes, state.frozen_nbytes) == (512, 512)


def test_what_no_entry_reads_has_no_place() -> None:
    made = graph("""
      %x : f32[8,8] = input batch "x"
      %w : f32[8,8] = input param "w"
      %folded : f32[8,8] = input param "folded"
      %y : f32[8,8] = add(%x, %w)
      output prediction "0" %y
    """)
    plan = planned(made)
    assert [tensor_name(s.key) for s in plan.state.slots] == ["w"]
    assert Param("folded") not in {p.role for p in plan.entries[0].inputs}
    # What one entry only carries along, another may read.
    read = graph("""
      %folded : f32[8,8] = input param "folded"
      output prediction "0" %folded
    """)
    entries = [entry_of(made), entry_of(read, name="other")]
    both = make_plan(entries)
    verify_plan(entries, both)
    assert [tensor_name(s.key) for s in both.state.slots] == ["w", "folded"]


def test_a_table_that_is_read_by_rows_is_marked() -> None:
    plan = planned(
        graph("""
      %ids : i64[3] = input batch "ids"
      %table : f32[8,4] = input param "table"
      %tied : f32[3,4] = input param "tied"
      %turned : f32[4,8] = input param "turned"
      %a : f32[3,4] = take(%table, %ids) {axis=0}
      %b : f32[3,4] = take(%tied, %ids) {axis=0}
      %c : f32[4,3] = take(%turned, %ids) {axis=1}
      %d : f32[3,4] = add(%b, %tied)
      output prediction "0" %a
      output prediction "1" %c
      output prediction "2" %d
    """)
    )
    marked = {tensor_name(s.key): s.gathered for s in plan.state.slots}
    assert marked == {"table": True, "tied": False, "turned": False}


def test_a_table_inside_a_fused_kernel_is_marked() -> None:
    made = graph("""
      %ids : i64[3] = input batch "ids"
      %table : f32[8,4] = input param "table"
      %bias : f32[3,4] = input param "bias"
      %a : f32[3,4] = take(%table, %ids) {axis=0}
      %y : f32[3,4] = add(%a, %bias)
      output prediction "0" %y
    """)
    fused = run_passes(made, parse_passes("fuse"))
    assert [n.op for n in fused.nodes] == ["fused"]
    marked = {tensor_name(s.key): s.gathered for s in planned(fused).state.slots}
    assert marked == {"table": True, "bias": False}
