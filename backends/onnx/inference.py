"""An artifact's `predict` as a model by itself, with the weights that it has now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from pockc.backends.onnx import opsets
from pockc.backends.onnx.model import PORTS, draft, finish
from pockc.backends.onnx.weights import inlined
from pockc.ir import Graph, Literal
from pockc.ir.parser import parse_graph
from pockc.ir.texts import graph_texts
from pockc.passes.rewriting import Rewriter, inline
from pockc.runtime.frozen import FrozenFile
from pockc.runtime.manifest import FROZEN_FILE
from pockc.runtime.opening import read_graph_text

ENTRY = "predict"
SPLIT_BYTES = 1 << 30
"""Weights of more bytes go to a file beside the model: protobuf holds twice that at most."""

_CONSTANT = "constant."


def inference_model(folder: Path, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model that takes the inputs of `predict` and nothing else.

    Args:
        folder: An artifact of whatever backend.
        values: All tensors of the model as they are now, by their own names.
    """
    path = folder / f"{ENTRY}.onnx"
    return _embedded(path, values) if path.is_file() else _lowered(folder, values)


def _embedded(path: Path, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Put the state into the model that takes it as inputs."""
    model = onnx.load(str(path))
    (ports,) = (json.loads(p.value) for p in model.metadata_props if p.key == PORTS)
    state = {
        p["name"]: p["tensor"] for p in ports["inputs"] if p["role"] in ("param", "buffer")
    }
    kept = [i for i in model.graph.input if i.name not in state]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for name, tensor in state.items():
        model.graph.initializer.append(numpy_helper.from_array(values[tensor], name))
    del model.metadata_props[:]
    return model


def _lowered(folder: Path, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Lower the graph of an artifact of kernels, taken apart into operators again."""
    text = graph_texts(read_graph_text(folder))[ENTRY]
    graph = _unfused(parse_graph(text, dict(_literals(folder))))
    drafted = draft(graph, frozenset(), values, opsets.choose(None))
    return finish(drafted, {}, "pockc", initializers=inlined(drafted.builder.weights))


def _literals(folder: Path) -> Iterator[tuple[str, Literal]]:
    frozen = FrozenFile.open(folder / FROZEN_FILE)
    for name in frozen.tensors():
        if name.startswith(_CONSTANT):
            yield name.removeprefix(_CONSTANT).partition(".")[0], Literal(frozen.read(name))


def _unfused(graph: Graph) -> Graph:
    """Return the graph with the bodies of kernels in place of the kernels."""
    rewriter = Rewriter(graph)
    for old in graph.nodes:
        node = rewriter.here(old)
        if node.op != "fused":
            rewriter.append(node)
            continue
        body: Graph = node.attrs["body"]
        operands = {i.name: node.inputs[int(_number(i.role))] for i in body.inputs}
        made = inline(rewriter, body, operands, f"{node.name}.")
        rewriter.replace(old.name, made[body.outputs[0].value])
    return rewriter.finish()


def _number(role: object) -> str:
    return str(getattr(role, "name", ""))


def save(model: onnx.ModelProto, path: Path, final_name: str) -> None:
    """Check a model and write it; large weights go to `<final_name>.data` beside it."""
    large = sum(len(i.raw_data) for i in model.graph.initializer) > SPLIT_BYTES
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=large,
        location=f"{final_name}.data" if large else None,
        size_threshold=1024,
    )
    onnx.checker.check_model(str(path), full_check=True)
