"""Every op over its samples, lowered to ONNX and run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pockc import interp, ops
from pockc.backends.onnx.lowerings import LOWERINGS
from pockc.backends.onnx.model import draft, finish
from pockc.backends.onnx.weights import initializers
from pockc.ir import Batch, DType, Graph, Prediction, f32
from pockc.ir.builder import GraphBuilder
from pockc.ops.base import Sample
from tests.support import close, graph
from tests.tolerances import tolerance

SAMPLES = {
    f"{op.name}-{number}": (op, sample)
    for op in ops.OPS.values()
    for number, sample in enumerate(op.samples)
}


def graph_of(op: str, sample: Sample) -> Graph:
    builder = GraphBuilder("sample")
    operands = [builder.input(Batch(str(i)), t) for i, t in enumerate(sample.types)]
    builder.output(Prediction("0"), builder.emit(op, *operands, **sample.attrs))
    return builder.build()


def run(graph: Graph, arrays: list[np.ndarray], opset: int = 21) -> np.ndarray:
    """Lower a graph, check the model, and run it."""
    drafted = draft(graph, frozenset(), {}, opset)
    model = finish(drafted, {}, "test", initializers(drafted.builder.weights, {}))
    onnx.checker.check_model(model, full_check=True)
    assert {n.domain for n in model.graph.node} <= {""}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    (result,) = session.run(None, dict(zip(names, arrays, strict=True)))
    return np.asarray(result)


def test_every_primitive_is_lowered() -> None:
    primitives = {o.name for o in ops.OPS.values() if o.decompose is None} - {"fused"}
    assert primitives - LOWERINGS.names == set()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_on_onnx_is_the_reference(name: str) -> None:
    op, sample = SAMPLES[name]
    arrays = sample.arrays(np.random.default_rng(len(name)))
    expected = op.reference(arrays, sample.attrs)
    result = run(graph_of(op.name, sample), arrays)
    assert result.shape == expected.shape
    close(result, np.asarray(expected), tolerance(DType.of(result.dtype), "kernel"))


@pytest.mark.parametrize("name", ["conv2d_grad_weight-3", "reduce_max-2", "take_grad-1"])
def test_the_oldest_opset_does(name: str) -> None:
    op, sample = SAMPLES[name]
    arrays = sample.arrays(np.random.default_rng(1))
    expected = op.reference(arrays, sample.attrs)
    close(run(graph_of(op.name, sample), arrays, 18), expected, tolerance(DType.F32, "kernel"))


def test_a_wrong_lowering_would_be_noticed() -> None:
    op, sample = SAMPLES["conv2d-2"]
    arrays = sample.arrays(np.random.default_rng(0))
    result = run(graph_of("conv2d", sample), arrays)
    with pytest.raises(AssertionError):
        close(result, 2 * op.reference(arrays, sample.attrs), tolerance(DType.F32, "kernel"))


WINDOWS = [
    # n, c, k, size, filter, stride, padding, dilation, groups
    (2, 6, 6, 11, 3, 2, 1, 1, 6),
    (1, 8, 8, 9, 5, 1, 2, 1, 8),
    (3, 5, 7, 12, 3, 2, 0, 1, 1),
    (2, 8, 12, 22, 3, 1, 1, 1, 1),
    (2, 8, 12, 12, 3, 1, 1, 1, 1),
    (2, 8, 12, 7, 3, 1, 1, 1, 1),
    (1, 6, 8, 24, 3, 1, 1, 1, 1),
    (1, 16, 24, 4, 3, 1, 1, 1, 1),
    (4, 16, 24, 3, 1, 1, 0, 1, 1),
    (4, 6, 8, 14, 1, 1, 0, 1, 1),
    (2, 6, 8, 14, 1, 2, 0, 1, 1),
    (2, 3, 8, 15, 7, 2, 3, 1, 1),
    (2, 4, 4, 12, 3, 1, 2, 2, 1),
    (2, 4, 4, 13, 3, 2, 2, 2, 4),
    (1, 4, 4, 6, 1, 1, 1, 1, 4),
]


def gradient(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> Graph:
    builder = GraphBuilder("gradient")
    operands = [builder.input(Batch(str(i)), f32(*s)) for i, s in enumerate(shapes)]
    builder.output(Prediction("0"), builder.emit(op, *operands, **attrs))
    return builder.build()


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("op", ["conv2d_grad_input", "conv2d_grad_weight"])
def test_each_form_of_a_gradient_is_the_reference(op: str, case: tuple[int, ...]) -> None:
    n, c, k, size, r, stride, padding, dilation, groups = case
    attrs = {
        "stride": (stride, stride), "padding": (padding, padding),
        "dilation": (dilation, dilation), "groups": groups,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, size, size)).astype(np.float32)
    w = rng.standard_normal((k, c // groups, r, r)).astype(np.float32)
    out = (size + 2 * padding - dilation * (r - 1) - 1) // stride + 1
    dy = rng.standard_normal((n, k, out, out)).astype(np.float32)
    if op == "conv2d_grad_input":
        arrays, attrs = [dy, w], {**attrs, "input_shape": x.shape}
    else:
        arrays, attrs = [x, dy], {**attrs, "weight_shape": w.shape}
    graph = gradient(op, [a.shape for a in arrays], attrs)
    expected = ops.get(op).reference(arrays, graph.nodes[0].attrs)
    close(run(graph, arrays), expected, tolerance(DType.F32, "kernel"))


@pytest.mark.parametrize(
    ("op", "n", "channels", "size", "expected"),
    [
        ("conv2d_grad_input", 4, 64, 4, "ConvTranspose"),
        ("conv2d_grad_input", 4, 8, 32, "Conv"),
        ("conv2d_grad_weight", 4, 64, 7, "Gemm"),
        ("conv2d_grad_weight", 1, 8, 32, "Gemm"),
        ("conv2d_grad_weight", 4, 8, 32, "MatMul"),
        ("conv2d_grad_weight", 1, 64, 128, "MatMul"),
        ("conv2d_grad_weight", 4, 3, 32, "Conv"),
    ],
)
def test_the_form_of_a_gradient_depends_on_its_shape(
    op: str, n: int, channels: int, size: int, expected: str
) -> None:
    image, filters = (n, channels, size, size), (channels, channels, 3, 3)
    attrs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    if op == "conv2d_grad_input":
        made = gradient(op, [image, filters], {**attrs, "input_shape": image})
    else:
        made = gradient(op, [image, image], {**attrs, "weight_shape": filters})
    drafted = draft(made, frozenset(), {}, 21)
    computing = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    # Filters are turned by a product with the reversed unit matrix, which comes first.
    last = [n.op_type for n in drafted.builder.nodes() if n.op_type in computing][-1]
    assert last == expected


@pytest.mark.parametrize(
    ("value", "operators"),
    [
        ("mul(%x, %small)", {"Mul"}),  # of a comparison, whatever was compared
        ("div(%x, %y)", {"Where"}),  # zero times infinity is no zero
    ],
)
def test_what_is_surely_finite_is_masked_by_a_product(value: str, operators: set[str]) -> None:
    made = graph(f"""
        %x : f32[3,4] = input batch "x"
        %y : f32[3,4] = input batch "y"
        %quotient : f32[3,4] = div(%y, %x)
        %less : b1[3,4] = lt(%quotient, %y)
        %small : f32[3,4] = cast(%less) {{dtype=f32}}
        %given : f32[3,4] = {value}
        %mask : b1[3,4] = lt(%x, %y)
        %zero : f32[] = full() {{dtype=f32, shape=(), value=0.0}}
        %masked : f32[3,4] = where(%mask, %given, %zero)
        output prediction "0" %masked
    """)
    drafted = draft(made, frozenset(), {}, 21)
    last = list(drafted.builder.nodes())[-1]
    assert {last.op_type} == operators
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2)]
    inputs = dict(zip([i.role for i in made.inputs], arrays, strict=True))
    (expected,) = interp.run(made, inputs).values()
    close(run(made, arrays), expected, tolerance(DType.F32, "kernel"))
