"""The whole list of passes, on five nets and four schemes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pockc.frontend.capture import capture
from pockc.ir import (
    Buffer,
    DType,
    Graph,
    Node,
    OptState,
    Param,
    StateUpdate,
    Update,
    print_graph,
    state_written,
)
from pockc.ir.verify import no_dead_nodes, problems_of, update_types, views_only
from pockc.ops.base import flops_of
from pockc.passes import pipeline
from pockc.passes.fold_frozen import FoldFrozen
from pockc.passes.memory import Storages
from pockc.passes.update_in_place import in_place_safe
from tests import nets
from tests.pipeline.captures import (
    NETS,
    SCHEMES,
    captured,
    choices,
    given,
    parameters_read,
    reference,
    trained,
)
from tests.support import Golden, close, random_inputs, results, same_results, without_numbers
from tests.tolerances import TABLE

pytestmark = pytest.mark.needs_torch
CASES = [(name, scheme) for name in NETS for scheme in SCHEMES]


def graphs(name: str) -> dict[str, Graph]:
    net = captured(name)
    return {"train": net.train, "evaluate": net.evaluate, "predict": net.predict}


@cache
def entries(name: str, scheme: str) -> dict[str, Graph]:
    return pipeline.compile_entries(graphs(name), choices(name, scheme))


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_every_entry_means_what_was_captured(name: str, scheme: str) -> None:
    compiled = entries(name, scheme)
    before = reference(name, choices(name, scheme))
    names = trained(name, scheme)[0]
    values = given(name, before, names)
    same_results(before, compiled["train_step"], kind="eager", given=values)
    for entry in ("evaluate", "predict"):
        source = graphs(name)[entry]
        values = given(name, source, names)
        same_results(source, compiled[entry], kind="eager", given=values)


def test_running_statistics_that_a_step_updates_are_not_folded() -> None:
    net = nets.make("mobilenet")
    batch = nets.batches("mobilenet", 2, 1)[0]
    moving = capture(net, batch[:-1], target_example=batch[-1], batch_norm="update")
    chosen = choices("mobilenet", "bias")
    sources = {"train": moving.train, "evaluate": moving.evaluate}
    compiled = pipeline.compile_entries(sources, chosen)
    buffers = [i.role.name for i in moving.evaluate.inputs if isinstance(i.role, Buffer)]
    values = given("mobilenet", moving.evaluate, buffers)
    same_results(moving.evaluate, compiled["evaluate"], kind="eager", given=values)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_what_a_backend_gets_is_sound(name: str, scheme: str) -> None:
    for graph in entries(name, scheme).values():
        invariants = (no_dead_nodes, views_only, update_types, in_place_safe)
        assert not problems_of(graph, invariants)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_exactly_what_is_trained_is_written_and_in_place(name: str, scheme: str) -> None:
    step = entries(name, scheme)["train_step"]
    written = {o.role.param for o in step.outputs if isinstance(o.role, Update)}
    assert written == trained(name, scheme)[0]
    copied = []
    for output in step.outputs:
        role = state_written(output.role)
        if isinstance(role, (Param, OptState)):
            node = step.node(output.value)
            home = step.input_of(role)
            if node is None or home is None:
                raise AssertionError(f"{role} is not computed")
            index = node.attrs.get("inplace")
            if index is None or node.inputs[index] != home.name:
                copied.append(role)
    assert not copied


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_only_images_at_the_door_change_their_layout(name: str, scheme: str) -> None:
    for graph in entries(name, scheme).values():
        moved = [
            node.inputs
            for node in graph.nodes
            if node.op == "relayout"
            or (
                node.op == "fused" and any(n.op == "relayout" for n in node.attrs["body"].nodes)
            )
        ]
        assert moved == ([("x",)] if name in ("mobilenet", "resnet") else [])


@pytest.mark.parametrize("name", NETS)
def test_frozen_tensors_cost_no_gradient(name: str) -> None:
    full, last = (entries(name, scheme)["train_step"] for scheme in ("full", "last"))
    assert _flops(last) < 0.75 * _flops(full)
    assert _peak(last) < _peak(full)


@pytest.mark.parametrize("name", ["mobilenet", "resnet"])
def test_frozen_batch_norm_costs_nothing_but_an_addition(name: str) -> None:
    compiled = entries(name, "last")
    for entry in ("train_step", "evaluate", "predict"):
        graph = compiled[entry]
        ops = Counter(n.op for m in graph.nodes for n in _body(m))
        assert "rsqrt" not in ops or name == "resnet"
    # Filters that are folded everywhere are read nowhere.
    frozen = {
        p
        for p, i in captured(name).parameters.items()
        if len(i.shape) == 4 and p not in trained(name, "last")[0] and not p.startswith("stem")
    }
    read = set().union(*(parameters_read(g) for g in compiled.values()))
    assert not read & frozen


def _body(node: Node) -> tuple[Node, ...]:
    body: Graph | None = node.attrs.get("body")
    return (node,) if body is None else body.nodes


def test_micro_batches_accumulate_and_then_update() -> None:
    chosen = replace(choices("mlp", "full", "sgd"), micro_batches=2, max_norm=0.3)
    compiled = pipeline.compile_entries(graphs("mlp"), chosen)
    assert list(compiled) == ["train_step", "apply_update", "evaluate", "predict"]
    step, apply = compiled["train_step"], compiled["apply_update"]
    assert not any(isinstance(o.role, Update) for o in step.outputs)
    assert {o.role.slot for o in step.outputs if isinstance(o.role, StateUpdate)} == {
        "grad_sum"
    }
    inputs = given("mlp", step)
    sums = {r: a for r, a in inputs.items() if isinstance(r, OptState)}
    for role in sums:
        inputs[role] = np.zeros_like(inputs[role])
    for _ in range(2):
        found = results(step, inputs)
        for role in sums:
            inputs[role] = found[StateUpdate(role.slot, role.param)]
    updated = results(apply, {**random_inputs(apply), **inputs})
    # Twice the same rows are the same mean gradient: one clipped step of plain descent.
    once = replace(choices("mlp", "full", "sgd"), max_norm=0.3)
    direct = pipeline.compile_entries({"train": captured("mlp").train}, once)["train_step"]
    expected = results(direct, given("mlp", direct))
    for update, array in expected.items():
        if isinstance(update, Update):
            close(updated[update], array, TABLE[DType.F32, "rewrite"])


@pytest.mark.parametrize("name", NETS)
def test_the_graph_after_every_pass(name: str, golden: Golden, tmp_path: Path) -> None:
    pipeline.compile_entries(graphs(name), choices(name, "last", "sgd"), tmp_path)
    dumps = sorted((tmp_path / "train_step").iterdir())
    assert dumps[0].name == "00_input.pock"
    seen: Counter[str] = Counter()
    for path in dumps[1:]:
        made_by = path.stem.partition("_")[2]
        seen[made_by] += 1
        # Before pruning the graphs are large, and one net shows what happens there.
        if name != "mlp" and not seen["PruneBackward"]:
            continue
        # Not the pass's number in the list: a new pass would rename what it leaves alone.
        again = f"_{seen[made_by]}" if seen[made_by] > 1 else ""
        golden.check(without_numbers(path.read_text()), f"{name}/{made_by}{again}.pock")


@pytest.mark.parametrize("name", NETS)
def test_the_ledger(name: str, golden: Golden) -> None:
    table = {}
    for scheme in SCHEMES:
        compiled = entries(name, scheme)
        table[scheme] = {
            entry: {
                "nodes": len(graph.nodes),
                "kernels": sum(
                    n.op not in ("reshape", "permute", "literal") for n in graph.nodes
                ),
                "flops": _flops(graph),
                "peak_bytes": _peak(graph),
            }
            for entry, graph in compiled.items()
        }
    golden.check(json.dumps(table, indent=1) + "\n", f"ledger/{name}.json")


def _flops(graph: Graph) -> int:
    return sum(flops_of(graph, n) for n in graph.nodes)


def _peak(graph: Graph) -> int:
    return Storages(graph).peak_bytes(graph.nodes)


def test_equal_input_gives_equal_text() -> None:
    first = entries("bert", "last")
    second = pipeline.compile_entries(graphs("bert"), choices("bert", "last"))
    assert [print_graph(g) for g in first.values()] == [print_graph(g) for g in second.values()]


def test_the_list_has_frozen_weights_folded_after_pruning() -> None:
    chosen = choices("mlp", "last")
    names = [type(p).__name__ for p in pipeline.backward_passes(chosen, FoldFrozen({}))]
    assert names.index("PruneBackward") < names.index("FoldFrozen")
