"""Runs an ONNX graph with torch, operator by operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pockc.frontend.onnx_model.table import OPERATORS, Known, Value


class OnnxModule(nn.Module):
    """An ONNX graph as a module.

    Floating point initialisers of more than one element are parameters, or buffers if they are
    statistics of a batch normalisation. Everything else that is known is no tensor of the
    module, and what is computed of it alone is computed with NumPy: shapes are.
    """

    def __init__(self, graph: Any, arrays: Mapping[str, np.ndarray]) -> None:  # noqa: ANN401
        """Take the nodes and the initialisers of a graph."""
        super().__init__()
        self.nodes = [_Step(n) for n in graph.node]
        self.results = [o.name for o in graph.output]
        self.known: dict[str, np.ndarray] = {}
        self.places: dict[str, str] = {}
        statistics = {
            name
            for n in graph.node
            if n.op_type == "BatchNormalization"
            for name in n.input[3:5]
        }
        for name, array in arrays.items():
            if array.dtype.kind == "f" and array.size > 1:
                self._own(name, array, name in statistics)
            else:
                self.known[name] = array

    def _own(self, name: str, array: np.ndarray, is_buffer: bool) -> None:
        """Make a parameter or buffer, in modules as the dots of its name say."""
        *path, last = [p or "_" for p in name.split(".")]
        owner: nn.Module = self
        for part in path:
            inner = owner._modules.get(part)
            if inner is None and hasattr(owner, part):
                break  # something else has this name
            if inner is None:
                inner = nn.Module()
                owner.add_module(part, inner)
            owner = inner
        else:
            if not hasattr(owner, last):
                self._register(owner, last, array, is_buffer)
                self.places[name] = ".".join((*path, last))
                return
        flat = re.sub(r"\W", "_", name)
        while hasattr(self, flat):
            flat += "_"
        self._register(self, flat, array, is_buffer)
        self.places[name] = flat

    @staticmethod
    def _register(owner: nn.Module, last: str, array: np.ndarray, is_buffer: bool) -> None:
        tensor = torch.from_numpy(np.array(array))
        if is_buffer:
            owner.register_buffer(last, tensor)
        else:
            owner.register_parameter(last, nn.Parameter(tensor))

    def forward(self, **inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the graph's outputs, one by itself or several as a tuple."""
        values: dict[str, Value] = dict(self.known) | dict(inputs)
        for name, place in self.places.items():
            owner, _, last = place.rpartition(".")
            values[name] = getattr(self.get_submodule(owner), last)
        for node in self.nodes:
            given = [values[n] if n else None for n in node.inputs]
            made = node.run(given)
            values.update(zip(node.outputs, made, strict=False))
        found = tuple(_tensor(values[n]) for n in self.results)
        return found[0] if len(found) == 1 else found


class _Step:
    """One node, ready to run."""

    def __init__(self, node: Any) -> None:  # noqa: ANN401
        import onnx

        self.node = node
        self.op = node.op_type
        self.inputs, self.outputs = list(node.input), list(node.output)
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
        self.constant: np.ndarray | None = None
        if self.op == "Constant":
            self.constant = _constant(onnx, attrs)

    def run(self, given: list[Value | None]) -> tuple[Value, ...]:
        if self.constant is not None:
            return (self.constant,)
        operator = OPERATORS[self.op]
        if self.op == "Shape" or not any(isinstance(g, Tensor) for g in given):
            return self._known(given)
        kept = operator.numbers
        taken = [g if i in kept or g is None else _tensor(g) for i, g in enumerate(given)]
        made = operator.run(*taken, **self.attrs)
        return made if isinstance(made, tuple) else (made,)

    def _known(self, given: list[Value | None]) -> tuple[Known, ...]:
        """Compute what depends on no tensor, as ONNX defines it."""
        if self.op == "Shape":
            (value,) = (g for g in given if g is not None)
            sizes = np.array(value.shape, np.int64)
            return (sizes[self.attrs.get("start", 0) : self.attrs.get("end")],)
        from onnx.reference import ReferenceEvaluator

        named = {n: g for n, g in zip(self.inputs, given, strict=True) if g is not None}
        return tuple(ReferenceEvaluator(self.node).run(None, named))


def _constant(onnx: Any, attrs: Mapping[str, Any]) -> np.ndarray:  # noqa: ANN401
    ((name, value),) = attrs.items()
    if name == "value":
        return np.asarray(onnx.numpy_helper.to_array(value))
    dtype = np.float32 if name.startswith("value_float") else np.int64
    return np.asarray(value, dtype)


def _tensor(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
