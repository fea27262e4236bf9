"""What ONNX Runtime needs beforehand: the net as ONNX, and the training graphs of it."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

from tests.bench import layers
from tests.bench.workers.meter import Array, Meter

FOLDER = "onnx"


class Model:
    """`tests.bench.layers.Layers` as ONNX nodes; a value is a name.

    Only what ONNX Runtime 1.19 has gradients for: neither BatchNormalization in inference mode
    nor Clip, and LayerNormalization with all of its outputs.
    """

    def __init__(self, weights: dict[str, Array], workload: dict[str, Any]) -> None:
        """Start an empty graph over weights by name."""
        self.weights, self.workload = weights, workload
        self.nodes: list[Any] = []
        self.initial: dict[str, Array] = {}

    def node(self, op: str, *inputs: str, outputs: int = 1, **attrs: Any) -> str:
        """Add a node and return its first output."""
        from onnx import helper

        name = f"n{len(self.nodes)}"
        results = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=name, **attrs))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an array that is never trained."""
        name = f"constant{len(self.initial)}"
        self.initial[name] = np.asarray(value, dtype)
        return name

    def shape(self, *sizes: int) -> str:
        """Add a shape."""
        return self.constant(sizes, np.int64)

    def parameter(self, name: str) -> str:
        """Add a weight."""
        self.initial[name] = self.weights[name]
        return name

    def conv_norm(
        self, name: str, x: str, *, size: int, stride: int = 1, depthwise: bool = False
    ) -> str:
        weight = self.weights[f"{name}.conv.weight"]
        channels = weight.shape[0]
        y = self.node(
            "Conv",
            x,
            self.parameter(f"{name}.conv.weight"),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=channels if depthwise else 1,
        )
        mean, variance = (self.weights[f"{name}.norm.running_{p}"] for p in ("mean", "var"))
        deviation = self.constant(np.sqrt(variance + 1e-5).reshape(-1, 1, 1))
        flat = self.shape(channels, 1, 1)
        scale, shift = (
            self.node("Reshape", self.parameter(f"{name}.norm.{p}"), flat)
            for p in ("weight", "bias")
        )
        scale = self.node("Div", scale, deviation)
        shift = self.node(
            "Sub", shift, self.node("Mul", self.constant(mean.reshape(-1, 1, 1)), scale)
        )
        return self.node("Add", self.node("Mul", y, scale), shift)

    def linear(self, name: str, x: str) -> str:
        bias = self.parameter(f"{name}.bias")
        if name in ("fc", "pooler"):  # behind the pooling: matrices
            return self.node("Gemm", x, self.parameter(f"{name}.weight"), bias, transB=1)
        self.initial[f"{name}.weight"] = np.ascontiguousarray(self.weights[f"{name}.weight"].T)
        return self.node("Add", self.node("MatMul", x, f"{name}.weight"), bias)

    def embedding(self, name: str, ids: str) -> str:
        return self.node("Gather", self.parameter(f"{name}.weight"), ids)

    def layer_norm(self, name: str, x: str) -> str:
        parts = (self.parameter(f"{name}.{p}") for p in ("weight", "bias"))
        return self.node("LayerNormalization", x, *parts, outputs=3, axis=-1, epsilon=1e-12)

    def attention(self, q: str, k: str, v: str, heads: int) -> str:
        sizes = self.workload["sizes"]
        tokens, wide = sizes["sequence"], sizes["hidden"]
        split = self.shape(-1, tokens, heads, wide // heads)
        q, k, v = (self.node("Reshape", x, split) for x in (q, k, v))
        q, v = (self.node("Transpose", x, perm=[0, 2, 1, 3]) for x in (q, v))
        scores = self.node("MatMul", q, self.node("Transpose", k, perm=[0, 2, 3, 1]))
        scores = self.node("Mul", scores, self.constant((wide // heads) ** -0.5))
        y = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        y = self.node("Transpose", y, perm=[0, 2, 1, 3])
        return self.node("Reshape", y, self.shape(-1, tokens, wide))

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def relu6(self, x: str) -> str:
        return self.node("Min", self.node("Relu", x), self.constant(6.0))

    def gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Mul", x, self.constant(2**-0.5)))
        y = self.node("Mul", x, self.node("Add", erf, self.constant(1.0)))
        return self.node("Mul", y, self.constant(0.5))

    def tanh(self, x: str) -> str:
        return self.node("Tanh", x)

    def add(self, a: str, b: str) -> str:
        return self.node("Add", a, b)

    def max_pool(self, x: str) -> str:
        return self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def mean_of_pixels(self, x: str) -> str:
        return self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)

    def first_token(self, x: str) -> str:
        return self.node("Gather", x, self.constant(0, np.int64), axis=1)


def leave_out_torch() -> None:
    """Let `onnxruntime.training` be imported without the parts of it that need PyTorch."""
    for part in ("amp", "optim"):
        name = f"onnxruntime.training.{part}"
        sys.modules[name] = types.ModuleType(name)


def make_model(weights: dict[str, Array], workload: dict[str, Any], x: Array) -> Any:
    """Return a workload as an ONNX model from `x`, like the given inputs, to `logits`."""
    from onnx import TensorProto, checker, helper, numpy_helper

    model = Model(weights, workload)
    logits = layers.outputs(model, "x", workload)
    model.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    dtype = TensorProto.FLOAT if x.ndim == 4 else TensorProto.INT64
    shape = (x.shape[0], workload["sizes"]["classes"])
    graph = helper.make_graph(
        model.nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, x.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v, n) for n, v in model.initial.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 8
    checker.check_model(made)
    return made


def export(meter: Meter) -> None:
    """Write the training graphs of the case into its folder."""
    leave_out_torch()
    from onnxruntime.training import artifacts

    made = make_model(dict(meter.weights()), meter.workload, meter.batch()[0])
    names = [tensor.name for tensor in made.graph.initializer]
    folder = meter.folder / FOLDER
    folder.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        made,
        optimizer=artifacts.OptimType.SGD,
        loss=artifacts.LossType.CrossEntropyLoss,
        requires_grad=[n for n in names if n in meter.trained],
        frozen_params=[n for n in names if n not in meter.trained],
        artifact_directory=folder,
    )


if __name__ == "__main__":
    export(Meter())
