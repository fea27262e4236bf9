"""Every op: its type rule fits its meaning, and its meaning is PyTorch's or calculus."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pockc import ops
from pockc.ir import Attrs, DType, Literal, TensorType, f32, i64
from pockc.ops.windows import AVG_POOL_SAMPLES, CONV_SAMPLES, MAX_POOL_SAMPLES

CASES = [
    pytest.param(op, s, id=f"{op.name}-{k}")
    for op in ops.OPS.values()
    for k, s in enumerate(op.samples)
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("op", "case"), CASES)
def test_the_type_rule_tells_shape_and_dtype_of_the_result(
    op: ops.OpDef, case: ops.Sample, rng: np.random.Generator
) -> None:
    tensor = op.infer(case.types, case.attrs)
    value = op.reference(case.arrays(rng), case.attrs)
    assert (value.shape, value.dtype) == (tensor.shape, tensor.dtype.np)
    assert op.flops(case.types, tensor, case.attrs) >= 0


def test_every_op_but_fused_has_samples() -> None:
    assert [op.name for op in ops.OPS.values() if not op.samples] == ["fused"]


@pytest.mark.parametrize(
    ("name", "types", "attrs"),
    [
        ("add", (f32(2), f32(3)), {}),
        ("add", (f32(2), i64(2)), {}),
        ("add", (f32(2),), {}),
        ("exp", (i64(2),), {}),
        ("where", (f32(2), f32(2), f32(2)), {}),
        ("reshape", (f32(2, 3),), {"shape": (7,)}),
        ("permute", (f32(2, 3),), {"perm": (0, 0)}),
        ("broadcast_to", (f32(2, 3),), {"shape": (3,)}),
        ("slice", (f32(5),), {"starts": (0,), "stops": (6,), "steps": (1,)}),
        ("pad", (f32(5),), {"low": (-1,), "high": (0,), "value": 0.0}),
        ("concat", (f32(2, 3), f32(3, 3)), {"axis": 1}),
        ("take", (f32(5), f32(2)), {"axis": 0}),
        ("put", (f32(5), f32(2)), {"axis": 0, "indices": (1, 1)}),
        ("put", (f32(5), f32(2)), {"axis": 0, "indices": (1, 5)}),
        ("reduce_sum", (f32(2, 3),), {"axes": (2,), "keepdims": False}),
        ("matmul", (f32(2, 3), f32(2, 3)), {}),
        ("conv2d", (f32(1, 3, 2, 2), f32(1, 3, 3, 3)), CONV_SAMPLES[0][2]),
        ("conv2d", (f32(1, 3, 5, 5), f32(1, 2, 3, 3)), CONV_SAMPLES[0][2]),
        ("iota", (), {"shape": (2,), "axis": 1, "dtype": DType.F32}),
    ],
)
def test_operands_that_do_not_fit_are_refused(
    name: str, types: tuple[TensorType, ...], attrs: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ops.get(name).infer(types, Attrs(attrs))  # type: ignore[arg-type]


@pytest.mark.parametrize(("x", "w", "attrs"), CONV_SAMPLES)
def test_convolution_and_its_gradients_are_those_of_pytorch(
    x: TensorType, w: TensorType, attrs: dict[str, object], rng: np.random.Generator
) -> None:
    frozen = Attrs(attrs)  # type: ignore[arg-type]
    tx = torch.from_numpy(rng.standard_normal(x.shape)).requires_grad_()
    tw = torch.from_numpy(rng.standard_normal(w.shape)).requires_grad_()
    y = functional.conv2d(tx, tw, None, **attrs)  # type: ignore[arg-type]
    dy = torch.from_numpy(rng.standard_normal(y.shape))
    y.backward(dy)
    nx, nw, ndy = tx.detach().numpy(), tw.detach().numpy(), dy.numpy()
    ours = ops.get("conv2d").reference([nx, nw], frozen)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    dx = ops.get("conv2d_grad_input").reference([ndy, nw], frozen.but(input_shape=x.shape))
    np.testing.assert_allclose(dx, tx.grad, rtol=1e-12, atol=1e-12)
    dw = ops.get("conv2d_grad_weight").reference([nx, ndy], frozen.but(weight_shape=w.shape))
    np.testing.assert_allclose(dw, tw.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "x", "attrs"), [
    *(("max", x, a) for x, a in MAX_POOL_SAMPLES),
    *(("avg", x, a) for x, a in AVG_POOL_SAMPLES),
])  # fmt: skip
def test_pooling_and_its_gradient_are_those_of_pytorch(
    name: str, x: TensorType, attrs: dict[str, object], rng: np.random.Generator
) -> None:
    # Whole numbers: ties between maxima are common.
    tx = torch.from_numpy(rng.integers(0, 4, x.shape).astype(np.float64)).requires_grad_()
    theirs = dict(attrs)
    kernel = theirs.pop("kernel")
    y = getattr(functional, f"{name}_pool2d")(tx, kernel, **theirs)
    dy = torch.from_numpy(rng.standard_normal(y.shape))
    y.backward(dy)
    frozen, nx = Attrs(attrs), tx.detach().numpy()  # type: ignore[arg-type]
    ours = ops.get(f"{name}_pool2d").reference([nx], frozen)
    np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-12)
    grad = ops.get(f"{name}_pool2d_grad")
    dx = (
        grad.reference([nx, dy.numpy()], frozen)
        if name == "max"
        else grad.reference([dy.numpy()], frozen.but(input_shape=x.shape))
    )
    np.testing.assert_allclose(dx, tx.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("forward", "adjoint"), [("take", "take_grad"), ("take_along", "take_along_grad")]
)
def test_scattering_is_the_adjoint_of_gathering(
    forward: str, adjoint: str, rng: np.random.Generator
) -> None:
    for case in ops.get(forward).samples:
        x, index = case.arrays(rng)
        y = ops.get(forward).reference([x, index], case.attrs)
        dy = rng.standard_normal(y.shape)
        back = case.attrs.but(size=x.shape[case.attrs["axis"]])
        dx = ops.get(adjoint).reference([dy, index], back)
        assert np.vdot(y, dy) == pytest.approx(np.vdot(x, dx))
        assert dx.shape == x.shape


def test_random_numbers_are_uniform_independent_and_repeatable() -> None:
    draw = ops.get("random_uniform").reference
    attrs = Attrs({"shape": (200, 500), "salt": 3})
    a = draw([np.int64(1)], attrs)
    assert np.array_equal(a, draw([np.int64(1)], attrs))
    assert a.min() >= 0
    assert a.max() < 1
    counts, _ = np.histogram(a, 20, (0, 1))
    assert abs(counts - 5000).max() < 5 * 5000**0.5
    for other in (draw([np.int64(2)], attrs), draw([np.int64(1)], attrs.but(salt=4))):
        assert abs(np.corrcoef(a.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a[:, :-1].ravel(), a[:, 1:].ravel())[0, 1]) < 0.02


def test_put_writes_the_chosen_rows_only(rng: np.random.Generator) -> None:
    x, v = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    y = ops.get("put").reference([x, v], Attrs({"axis": 1, "indices": (2, 0)}))
    assert np.array_equal(y[:, [2, 0]], v)
    assert np.array_equal(y[:, 1], x[:, 1])
    assert not np.shares_memory(x, y)


def test_the_arithmetic_of_contractions_is_that_of_the_formula() -> None:
    flops = ops.get("matmul").flops((f32(3, 5), f32(5, 7)), f32(3, 7), Attrs())
    assert flops == 2 * 3 * 5 * 7
    x, w, attrs = CONV_SAMPLES[5]  # 2 groups: N 2, K 4, C / groups 3, 3 x 3, out 7 x 7
    given = Attrs(attrs)
    y = ops.get("conv2d").infer((x, w), given)
    expected = 2 * (2 * 4 * 7 * 7) * (3 * 3 * 3)
    assert ops.get("conv2d").flops((x, w), y, given) == expected
    dx = given.but(input_shape=x.shape)
    assert ops.get("conv2d_grad_input").flops((y, w), x, dx) == expected
    dw = given.but(weight_shape=w.shape)
    assert ops.get("conv2d_grad_weight").flops((x, y), w, dw) == expected


def test_a_literal_is_compared_by_content_and_cannot_be_written() -> None:
    mine = np.ones(3, np.float32)
    a, b = Literal(mine), Literal(np.ones(3, np.float32))
    mine[0] = 2
    assert a == b
    assert hash(a) == hash(b)
    assert a != Literal(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        a.array[0] = 5
