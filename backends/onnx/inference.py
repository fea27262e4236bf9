"""An artifact's `predict` as a model by itself, with the weights that it has now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pockc.backends.onnx import opsets
from pockc.backends.onnx.elements import DTYPES
from pockc.backends.onnx.model import PORTS, draft, finish
from pockc.backends.onnx.weights import (
    INLINE_BYTES,
    Weight,
    initializers,
    write_tensors,
)
from pockc.ir import Graph, Literal
from pockc.ir.parser import parse_graph
from pockc.ir.texts import graph_texts
from pockc.passes.rewriting import Rewriter, inline
from pockc.runtime.frozen import FrozenFile
from pockc.runtime.manifest import FROZEN_FILE
from pockc.runtime.opening import read_graph_text

ENTRY = "predict"
_CONSTANT = "constant."


@dataclass(frozen=True)
class Inference:
    """A model that takes the inputs of `predict` and nothing else; its constants by name."""

    model: onnx.ModelProto
    weights: Mapping[str, Weight]


def inference_model(folder: Path, values: Mapping[str, np.ndarray]) -> Inference:
    """Return the model of an artifact.

    Args:
        folder: An artifact of whatever backend.
        values: All tensors of the model as they are now, by their own names.
    """
    path = folder / f"{ENTRY}.onnx"
    return _embedded(path, values) if path.is_file() else _lowered(folder, values)


def _embedded(path: Path, values: Mapping[str, np.ndarray]) -> Inference:
    """Make the state that the model takes as inputs its constants."""
    model = onnx.load(str(path), load_external_data=False)
    (ports,) = (json.loads(p.value) for p in model.metadata_props if p.key == PORTS)
    state = {
        p["name"]: p["tensor"] for p in ports["inputs"] if p["role"] in ("param", "buffer")
    }
    weights = {i.name: Weight.stored(i, path.parent) for i in model.graph.initializer}
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    for name, tensor in state.items():
        weights[name] = Weight.of(values[tensor], DTYPES[types[name]])
    kept = [i for i in model.graph.input if i.name not in state]
    for field, left in ((model.graph.input, kept), (model.graph.initializer, [])):
        del field[:]
        field.extend(left)
    del model.metadata_props[:]
    return Inference(model, weights)


def _lowered(folder: Path, values: Mapping[str, np.ndarray]) -> Inference:
    """Lower the graph of an artifact of kernels, taken apart into operators again."""
    text = graph_texts(read_graph_text(folder))[ENTRY]
    graph = _unfused(parse_graph(text, dict(_literals(folder))))
    drafted = draft(graph, frozenset(), values, opsets.choose(None))
    model = finish(drafted, {}, "pockc", constants=())
    return Inference(model, drafted.builder.weights)


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


def save(made: Inference, path: Path, split_bytes: int) -> list[Path]:
    """Write a model, and its large constants to a file beside it, if it has too many; check it.

    Args:
        made: The model.
        path: Its file.
        split_bytes: More bytes of constants go to `<path>.data`, which is safetensors.

    Returns:
        The files, the model last.
    """
    data, files, places = path.with_name(f"{path.name}.data"), [path], {}
    if sum(w.raw.nbytes for w in made.weights.values()) > split_bytes:
        large = {n: w for n, w in made.weights.items() if w.raw.nbytes > INLINE_BYTES}
        begins = write_tensors(data, large)
        places = {w.key: begins[n] for n, w in large.items()}
        files = [data, path]
    made.model.graph.initializer.extend(initializers(made.weights, places, data.name))
    path.write_bytes(made.model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
    return files
