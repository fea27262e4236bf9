"""Graphs for viewers: stages, phases, what is trained and what is pruned."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import dacite
import onnx
import pytest

from pockc.cli.app import run
from pockc.errors import UserError
from pockc.ir import Gradient, Source
from pockc.ir.source_text import read_sources
from pockc.report.graphs import Stage, read_stage, stage_names
from pockc.report.model_explorer import collection
from pockc.report.net import Column, columns, net_svg
from pockc.report.netron import onnx_view
from pockc.report.subject import Subject
from tests.report.model_explorer_schema import graph_builder

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]


@pytest.fixture(scope="session")
def captured(sparse: Subject) -> Stage:
    return read_stage(sparse, "captured")


def test_every_stage_from_capture_to_the_end_is_there(sparse: Subject) -> None:
    names = stage_names(sparse)
    assert names[0] == "captured"
    assert names[-3:] == ["final", "evaluate", "predict"]
    assert "04_PruneBackward" in names
    final = read_stage(sparse, "final")
    assert final.graph.name == "train_step"
    assert set(final.phases.values()) == {"forward", "backward", "update"}
    assert read_stage(sparse, "4") == read_stage(sparse, "PruneBackward")


def test_an_unknown_stage_names_the_choices(sparse: Subject) -> None:
    with pytest.raises(UserError, match=r"\[no-stage\] .*; did you mean captured\?"):
        read_stage(sparse, "capture")


def test_what_is_called_pruned_is_what_the_pass_removes(sparse: Subject) -> None:
    # Of the passes of that name the first, which runs before pruning.
    before, after = read_stage(sparse, "1"), read_stage(sparse, "PruneBackward")
    kept = {n.name for n in after.graph.nodes}
    assert before.pruned == {n.name for n in before.graph.nodes} - kept
    assert before.pruned
    assert not after.pruned


def test_nothing_of_a_full_update_is_pruned(full: Subject) -> None:
    assert not read_stage(full, "captured").pruned


def test_nodes_keep_module_and_line_through_the_passes(sparse: Subject) -> None:
    for name in ("captured", "final"):
        stage = read_stage(sparse, name)
        modules = {n.source.module for n in stage.graph.nodes if n.source}
        assert {"layers.0.0", "layers.2.2", "head"} <= modules


def test_sources_are_read_back_from_text() -> None:
    text = """graph t {
  %x : f32[4] = input batch "x"
  %a : f32[4] = exp(%x)  # [layers.0] model.py:27 in Mlp.forward: return x  # twice
  %b : f32[4] = fused(%a) {body=graph body {
    %x : f32[4] = input batch "0"
  }}  # loss:1 in cross_entropy
  %c : f32[4] = exp(%b)
}
"""
    assert read_sources(text) == {
        "a": Source("model.py", 27, "Mlp.forward", "return x  # twice", "layers.0"),
        "b": Source("loss", 1, "cross_entropy"),
    }


def test_model_explorers_json_has_every_node_and_edge(sparse: Subject, captured: Stage) -> None:
    data = collection("sparse", [captured, read_stage(sparse, "final")])
    assert [g["id"] for g in data["graphs"]] == ["captured", "final"]
    for graph, stage in zip(
        data["graphs"], (captured, read_stage(sparse, "final")), strict=True
    ):
        by_id = {n["id"]: n for n in graph["nodes"]}
        assert len(by_id) == len(graph["nodes"])
        edges = {
            (e["sourceNodeId"], n["id"]) for n in graph["nodes"] for e in n["incomingEdges"]
        }
        assert {s for s, _ in edges} <= set(by_id)
        assert {(i, n.name) for n in stage.graph.nodes for i in n.inputs} <= edges
        spaces = {n["namespace"].split("/")[0] for n in graph["nodes"]}
        assert {"forward", "backward"} <= spaces
    grey = [n["id"] for n in data["graphs"][0]["nodes"] if _is_grey(n)]
    assert captured.pruned <= set(grey)
    frozen = next(n for n in data["graphs"][0]["nodes"] if n["id"] == "layers_0_0_weight")
    assert frozen["label"] == "weight (frozen)"
    trained = next(n for n in data["graphs"][0]["nodes"] if n["id"] == "head_weight")
    assert trained["label"] == "weight (trained)"


def _is_grey(node: dict[str, object]) -> bool:
    return node.get("style") == {"backgroundColor": "#eceef0", "borderColor": "#b8bfc6"}


def test_the_json_is_what_model_explorers_own_classes_read(captured: Stage) -> None:
    builder = graph_builder()
    data = json.loads(json.dumps(collection("sparse", [captured])))
    config = dacite.Config(strict=True)
    found = dacite.from_dict(builder.GraphCollection, data, config)
    assert len(found.graphs[0].nodes) == len(data["graphs"][0]["nodes"])
    data["graphs"][0]["nodes"][0]["colour"] = "grey"
    with pytest.raises(dacite.UnexpectedDataError):
        dacite.from_dict(builder.GraphCollection, data, config)


def test_every_stage_is_an_onnx_file_that_the_checker_takes(sparse: Subject) -> None:
    for name in stage_names(sparse):
        stage = read_stage(sparse, name)
        model = onnx_view(stage, "pockc")
        onnx.checker.check_model(model, full_check=True)
        assert len(model.graph.node) >= len(stage.graph.nodes)


def test_the_onnx_file_tells_phases_and_trained_tensors(captured: Stage) -> None:
    model = onnx_view(captured, "pockc")
    domains = {n.name.rsplit("/", 1)[-1]: n.domain for n in model.graph.node}
    assert set(domains.values()) == {"pockc.forward", "pockc.backward", "pockc.pruned"}
    assert {n for n, d in domains.items() if d == "pockc.pruned"} == captured.pruned
    told = {i.name: {p.key: p.value for p in i.metadata_props} for i in model.graph.input}
    assert told["head_weight"] == {"role": "param head.weight", "trained": "100 %"}
    assert told["layers_0_0_bias"]["trained"] == "no"


def test_the_net_shows_where_gradients_stop(sparse: Subject, captured: Stage) -> None:
    shown = {c.name: c for c in columns(captured, sparse.sizes())}
    assert list(shown)[:2] == ["layers.0.0", "layers.0.2"]
    first, last = shown["layers.0.0"], shown["layers.2.2"]
    assert (first.hands_on, first.kept, first.trained) == (False, False, 0.0)
    assert (last.hands_on, last.kept, last.trained) == (True, True, 1.0)
    # Of the last block's first layer only the bias is trained: its gradient goes no further.
    bias = shown["layers.2.0"]
    assert (bias.hands_on, bias.kept) == (True, False)
    assert bias.trained == pytest.approx(48 / (48 + 48 * 24))
    assert (shown["head"].kept, shown["head"].trained) == (True, 1.0)


def test_nothing_of_a_full_update_is_grey(full: Subject) -> None:
    shown = columns(read_stage(full, "captured"), full.sizes())
    assert all(c.kept == c.hands_on and c.trained == 1 for c in shown)
    assert 'class="p"' not in net_svg("full", shown).split("<text x=")[0].split("</style>")[1]


def test_the_nets_picture_is_small_well_formed_and_knows_the_dark() -> None:
    shown = [Column(f"layers.{i}.fc", i > 0, i > 4, i / 10) for i in range(11)]
    text = net_svg("a <net>", shown)
    root = ET.fromstring(text)
    cells = [r for g in root.iter("{http://www.w3.org/2000/svg}g") for r in g]
    assert sum(r.get("class") == "f" for r in cells) == 11
    assert sum(r.get("class") == "b" for r in cells) == 6
    assert "prefers-color-scheme:dark" in text
    assert len(text) < 10_000


def test_a_large_net_is_drawn_by_block() -> None:
    shown = [
        Column(f"layers.{i // 8}.m{i % 8}", True, i >= 100, float(i >= 100)) for i in range(160)
    ]
    assert net_svg("large", shown).count('class="f" x=') == 20 + 1


def test_show_writes_what_the_name_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = str(folder / "sparse.pock")
    for name in ("g.json", "g.onnx", "g.svg"):
        assert run(["show", artifact, "-o", str(tmp_path / name)]) == 0
    gradients = ["show", artifact, "--stage", "PruneBackward", "-o", str(tmp_path / "p.onnx")]
    assert run(gradients) == 0
    assert run(["show", artifact, "--stages"]) == 0
    out = capsys.readouterr().out
    assert "open it with: pip install netron; netron" in out
    assert "04_PruneBackward" in out
    assert len(json.loads((tmp_path / "g.json").read_text())["graphs"]) > 8
    onnx.checker.check_model(str(tmp_path / "p.onnx"))
    assert run(["show", artifact, "-o", str(tmp_path / "g.dot")]) == 1
    assert "[show-format] 'g.dot' is no file for a viewer" in capsys.readouterr().err


def test_gradients_are_outputs_before_the_optimizer(captured: Stage) -> None:
    assert any(isinstance(o.role, Gradient) for o in captured.graph.outputs)
