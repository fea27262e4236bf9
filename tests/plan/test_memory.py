"""What memory is used for: figures that can be worked out by hand."""

from __future__ import annotations

import json

from pockc.ir.phases import forward_end, forward_nodes
from pockc.plan import kernel_calls, make_plan, memory_report, report_data
from tests.plan.graphs import SGD
from tests.plan.machine import entry_of
from tests.support import graph

# A two-layer net without biases, batch of 4: 8 -> 16 -> 2, mean squared error, plain SGD.
TWO_LAYERS = graph("""
  %x : f32[4,8] = input batch "x"
  %t : f32[4,2] = input batch "target"
  %w1 : f32[8,16] = input param "w1"
  %w2 : f32[16,2] = input param "w2"
  %m : f32[16,2] = input opt_state "momentum" "w2"
  %lr : f32[] = input scalar "lr"
  %h : f32[4,16] = matmul(%x, %w1)
  %a : f32[4,16] = tanh(%h)
  %y : f32[4,2] = matmul(%a, %w2)
  %e : f32[4,2] = sub(%y, %t)
  %s : f32[4,2] = mul(%e, %e)
  %loss : f32[] = reduce_sum(%s) {axes=(0, 1), keepdims=false}
  %at : f32[16,4] = permute(%a) {perm=(1, 0)}
  %g2 : f32[16,2] = matmul(%at, %e)
  %m2 : f32[16,2] = add(%m, %g2) {inplace=0}
  %d2 : f32[16,2] = mul(%m2, %lr)
  %n2 : f32[16,2] = sub(%w2, %d2) {inplace=0}
  output loss %loss
  output update "w2" %n2
  output state_update "momentum" "w2" %m2
""")


def test_the_state_is_told_by_purpose() -> None:
    entry = entry_of(TWO_LAYERS)
    state = memory_report([entry], make_plan([entry])).state
    assert state.trained_parameters == 16 * 2 * 4
    assert state.frozen_parameters == 8 * 16 * 4
    assert state.optimizer == 16 * 2 * 4
    assert (state.buffers, state.constants) == (0, 0)
    assert state.nbytes == 128 + 128
    assert state.frozen_nbytes == 512


def test_saved_activations_are_what_backward_reads_of_forward() -> None:
    entry = entry_of(TWO_LAYERS)
    (memory,) = memory_report([entry], make_plan([entry])).entries
    # The error %e is the last forward value that backward needs; %s and %loss are not saved.
    assert [(s.value, s.nbytes) for s in memory.saved] == [("a", 4 * 16 * 4), ("e", 4 * 2 * 4)]
    assert memory.saved_bytes == 256 + 32


def test_a_loss_that_runs_last_does_not_move_the_end_of_forward() -> None:
    late = TWO_LAYERS.replace(
        nodes=tuple(n for n in TWO_LAYERS.nodes if n.name not in ("s", "loss"))
        + tuple(n for n in TWO_LAYERS.nodes if n.name in ("s", "loss"))
    )
    assert forward_nodes(late) == {"h", "a", "y", "e", "s", "loss"}
    assert forward_end(late) == forward_end(TWO_LAYERS) == 3
    entry = entry_of(late)
    (memory,) = memory_report([entry], make_plan([entry])).entries
    assert memory.saved_bytes == 256 + 32


def test_a_graph_without_updates_has_no_backward_pass() -> None:
    forward = TWO_LAYERS.replace(outputs=TWO_LAYERS.outputs[:1])
    assert forward_end(forward) is None
    entry = entry_of(forward)
    (memory,) = memory_report([entry], make_plan([entry])).entries
    assert memory.saved_bytes == 0


def test_categories_sum_to_the_peak() -> None:
    entry = entry_of(SGD, {"g": (512,)})
    plan = make_plan([entry])
    (memory,) = memory_report([entry], plan).entries
    assert sum(memory.peak.values()) == memory.lower_bound_bytes == max(memory.timeline)
    assert memory.peak_node == "g"
    assert memory.peak["workspace"] == 512


def test_reports_are_json() -> None:
    entry = entry_of(TWO_LAYERS)
    plan = make_plan([entry])
    data = report_data(memory_report([entry], plan))
    assert json.loads(json.dumps(data)) == data
    assert data["entries"]["step"]["saved_count"] == 2


def test_kernel_calls_are_counted_by_entry() -> None:
    entry = entry_of(TWO_LAYERS)
    calls = kernel_calls(make_plan([entry]))
    assert calls["k_matmul"] == {"step": 3}
    assert next(iter(calls)) == "k_matmul"
