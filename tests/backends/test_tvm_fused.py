"""Fused bodies of every class, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pockc import ops
from pockc.ir.attrs import Attrs
from pockc.ir.builder import GraphBuilder
from pockc.ir.graph import Graph
from pockc.ir.roles import Batch, Prediction
from pockc.ir.types import DType, TensorType, f32, i64
from tests.backends.native import Case, Library, case

LAST = (0, 2, 3, 1)


class Body:
    """A body under construction; calling it adds a node."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.g = GraphBuilder("body")
        self.types: list[TensorType] = []

    def input(self, type: TensorType) -> str:
        """Add an operand."""
        self.types.append(type)
        return self.g.input(Batch(str(len(self.types) - 1)), type)

    def __call__(self, op: str, *inputs: str, **attrs: object) -> str:
        """Add a node."""
        return self.g.emit(op, *inputs, **attrs)

    def number(self, value: float) -> str:
        """Add a scalar."""
        return self("full", shape=(), value=value, dtype=DType.F32)

    def done(self, value: str, layout: tuple[int, ...] | None = None) -> Graph:
        """Return the body."""
        self.g.output(Prediction("0"), value)
        graph = self.g.build()
        nodes = tuple(
            replace(n, type=n.type.with_layout(layout)) if n.name == value else n
            for n in graph.nodes
        )
        return graph.replace(nodes=nodes)


def softmax(b: Body, x: str, axis: int) -> str:
    m = b("reduce_max", x, axes=(axis,), keepdims=True)
    e = b("exp", b("sub", x, m))
    return b("div", e, b("reduce_sum", e, axes=(axis,), keepdims=True))


def row_softmax() -> Graph:
    b = Body()
    return b.done(softmax(b, b.input(f32(3, 5, 50)), 2))


def column_softmax() -> Graph:
    b = Body()
    return b.done(softmax(b, b.input(f32(40, 37)), 0))


def masked_softmax() -> Graph:
    b = Body()
    x, m = b.input(f32(2, 3, 33, 33)), b.input(TensorType((33, 33), DType.B1))
    shown = b("where", m, b("mul", x, b.number(0.125)), b.number(float("-inf")))
    diagonal = b("eq", b("iota", shape=(33, 33), axis=0, dtype=DType.I64),
                 b("iota", shape=(33, 33), axis=1, dtype=DType.I64))  # fmt: skip
    return b.done(softmax(b, b("where", diagonal, x, shown), 3))


def softmax_gradient() -> Graph:
    b = Body()
    y, dy = b.input(f32(7, 100)), b.input(f32(7, 100))
    total = b("reduce_sum", b("mul", y, dy), axes=(1,), keepdims=True)
    return b.done(b("mul", y, b("sub", dy, total)))


def layer_norm() -> Graph:
    b = Body()
    x, g, z = b.input(f32(4, 9, 96)), b.input(f32(96)), b.input(f32(96))
    share = b.number(1 / 96)
    mean = b("mul", b("reduce_sum", x, axes=(2,), keepdims=True), share)
    d = b("sub", x, mean)
    var = b("mul", b("reduce_sum", b("mul", d, d), axes=(2,), keepdims=True), share)
    n = b("mul", d, b("rsqrt", b("add", var, b.number(1e-5))))
    return b.done(b("add", b("mul", n, g), z))


def layer_norm_gradient() -> Graph:
    b = Body()
    x, dy = b.input(f32(70, 40)), b.input(f32(70, 40))
    mean, r, g = b.input(f32(70, 1)), b.input(f32(70, 1)), b.input(f32(40))
    n = b("mul", b("sub", x, mean), r)
    dn = b("mul", dy, g)
    share = b.number(1 / 40)
    a = b("mul", b("reduce_sum", dn, axes=(1,), keepdims=True), share)
    c = b("mul", b("reduce_sum", b("mul", dn, n), axes=(1,), keepdims=True), share)
    return b.done(b("mul", r, b("sub", b("sub", dn, a), b("mul", n, c))))


def row_variance() -> Graph:
    b = Body()
    x = b.input(f32(300, 130))
    mean = b("mul", b("reduce_sum", x, axes=(1,), keepdims=True), b.number(1 / 130))
    d = b("sub", x, mean)
    return b.done(b("reduce_sum", b("mul", d, d), axes=(1,), keepdims=False))


def dropped_axes() -> Graph:
    """Sums without their axes, put back by a reshape."""
    b = Body()
    x = b.input(f32(6, 20))
    s = b("reshape", b("reduce_sum", x, axes=(1,), keepdims=False), shape=(6, 1))
    t = b("reduce_max", b("mul", x, s), axes=(1,), keepdims=True)
    return b.done(b("sub", x, t))


def batch_statistics() -> Graph:
    b = Body()
    x = b.input(TensorType((4, 33, 5, 6), DType.F32, LAST))
    mean = b("mul", b("reduce_sum", x, axes=(0, 2, 3), keepdims=True), b.number(1 / 120))
    d = b("sub", x, mean)
    var = b(
        "mul", b("reduce_sum", b("mul", d, d), axes=(0, 2, 3), keepdims=True), b.number(1 / 120)
    )
    return b.done(b("mul", d, b("rsqrt", b("add", var, b.number(1e-5)))), LAST)


def cross_entropy() -> Graph:
    b = Body()
    x, target = b.input(f32(9, 17)), b.input(i64(9))
    m = b("reduce_max", x, axes=(1,), keepdims=True)
    total = b("reduce_sum", b("exp", b("sub", x, m)), axes=(1,), keepdims=True)
    lse = b("add", m, b("log", total))
    chosen = b("take_along", x, b("reshape", target, shape=(9, 1)), axis=1)
    return b.done(b("sub", lse, chosen))


def linear_gelu() -> Graph:
    b = Body()
    x, w, z = b.input(f32(2, 25, 48)), b.input(f32(48, 50)), b.input(f32(50))
    h = b("add", b("matmul", x, w), z)
    return b.done(
        b(
            "mul",
            h,
            b(
                "add",
                b("mul", b("erf", b("mul", h, b.number(0.70710678))), b.number(0.5)),
                b.number(0.5),
            ),
        )
    )


def heads() -> Graph:
    """A product whose result is cut into heads and turned: the epilogue moves elements."""
    b = Body()
    x, w, z = b.input(f32(14, 24)), b.input(f32(24, 36)), b.input(f32(36))
    h = b("reshape", b("add", b("matmul", x, w), z), shape=(2, 7, 3, 12))
    return b.done(b("mul", b("permute", h, perm=(0, 2, 1, 3)), b.number(2.0)))


def prologue() -> Graph:
    b = Body()
    x, w = b.input(f32(30, 20)), b.input(f32(20, 17))
    return b.done(b("matmul", b("maximum", x, b.number(0.0)), b("mul", w, b.number(3.0))))


def long_product() -> Graph:
    """A weight gradient with the update: new = p - lr * x^T dy."""
    b = Body()
    p = b.input(f32(19, 21))
    x, dy, lr = b.input(f32(30000, 19)), b.input(f32(30000, 21)), b.input(f32())
    g = b("matmul", b("permute", x, perm=(1, 0)), dy)
    return b.done(b("sub", p, b("mul", lr, g)))


def turned_blocks() -> Graph:
    """The update of a weight whose left operand is turned in two blocks, the second shorter."""
    b = Body()
    p, x, dy = b.input(f32(1100, 200)), b.input(f32(1000, 1100)), b.input(f32(1000, 200))
    g = b("matmul", b("permute", x, perm=(1, 0)), dy)
    return b.done(b("sub", p, b("mul", g, b.number(0.01))))


def conv_block() -> Graph:
    b = Body()
    image = TensorType((2, 20, 9, 9), DType.F32, LAST)
    x, r = b.input(image), b.input(image)
    w, z = b.input(TensorType((20, 20, 3, 3), DType.F32, (2, 3, 1, 0))), b.input(f32(20))
    h = b("conv2d", x, w, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    h = b("add", h, b("reshape", z, shape=(20, 1, 1)))
    h = b("minimum", b("maximum", h, b.number(0.0)), b.number(6.0))
    return b.done(b("add", h, r), LAST)


def pointwise_conv_block() -> Graph:
    b = Body()
    image = TensorType((2, 20, 9, 9), DType.F32, LAST)
    x, mask = b.input(image), b.input(replace(image, dtype=DType.B1))
    w, z = (
        b.input(TensorType((20, 20, 1, 1), DType.F32, (2, 3, 1, 0))),
        b.input(f32(1, 20, 1, 1)),
    )
    h = b("conv2d", x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    h = b("where", mask, b("add", h, z), b.number(0.0))
    return b.done(h, LAST)


def depthwise_block() -> Graph:
    b = Body()
    image = TensorType((2, 20, 9, 9), DType.F32, LAST)
    x, w, z = (
        b.input(image),
        b.input(TensorType((20, 1, 3, 3), DType.F32, (2, 3, 1, 0))),
        b.input(f32(20, 1, 1)),
    )
    h = b("conv2d", x, w, stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=20)
    return b.done(b("maximum", b("add", h, z), b.number(0.0)), LAST)


def bias_gradient() -> Graph:
    b = Body()
    dy, y = b.input(f32(4000, 37)), b.input(f32(4000, 37))
    shown = b("where", b("gt", y, b.number(0.0)), dy, b.number(0.0))
    return b.done(b("reduce_sum", shown, axes=(0,), keepdims=False))


def mean_square() -> Graph:
    b = Body()
    x, y = b.input(f32(500, 300)), b.input(f32(500, 300))
    d = b("sub", x, y)
    total = b("reduce_sum", b("mul", d, d), axes=(0, 1), keepdims=False)
    return b.done(b("mul", total, b.number(1 / 150000)))


def dropout() -> Graph:
    b = Body()
    x, seed = b.input(f32(40, 50)), b.input(i64())
    keep = b("ge", b("random_uniform", seed, shape=(40, 50), salt=3), b.number(0.25))
    return b.done(b("where", keep, b("mul", x, b.number(4 / 3)), b.number(0.0)))


def moves() -> Graph:
    b = Body()
    x, y = b.input(f32(6, 40)), b.input(f32(6, 8))
    cut = b("slice", x, starts=(0, 4), stops=(6, 36), steps=(1, 2))
    both = b("concat", cut, y, axis=1)
    wide = b("pad", both, low=(1, 3), high=(0, 2), value=-1.0)
    return b.done(b("mul", wide, b("broadcast_to", b.number(2.0), shape=(7, 29))))


def rotary() -> Graph:
    b = Body()
    x, cos, sin = b.input(f32(2, 3, 10, 16)), b.input(f32(10, 16)), b.input(f32(10, 16))
    left = b("slice", x, starts=(0, 0, 0, 0), stops=(2, 3, 10, 8), steps=(1, 1, 1, 1))
    right = b("slice", x, starts=(0, 0, 0, 8), stops=(2, 3, 10, 16), steps=(1, 1, 1, 1))
    turned = b("concat", b("neg", right), left, axis=3)
    return b.done(b("add", b("mul", x, cos), b("mul", turned, sin)))


def gather() -> Graph:
    b = Body()
    table, at, place = b.input(f32(11, 24)), b.input(i64(2, 7)), b.input(f32(7, 24))
    return b.done(b("add", b("take", table, at, axis=0), place))


def sum_of_product() -> Graph:
    """No class at all: a product, then sums of it, then both."""
    b = Body()
    x, w = b.input(f32(30, 20)), b.input(f32(20, 17))
    y = b("matmul", x, w)
    return b.done(b("sub", y, b("reduce_max", y, axes=(0,), keepdims=True)))


def turned_sum() -> Graph:
    """A value read at two different places."""
    b = Body()
    y = b("matmul", b.input(f32(20, 16)), b.input(f32(16, 20)))
    return b.done(b("add", y, b("permute", y, perm=(1, 0))))


def strided_layouts() -> Graph:
    b = Body()
    x = b.input(TensorType((2, 18, 4, 5), DType.F32, LAST))
    y, z = b.input(f32(2, 18, 4, 5)), b.input(f32(18, 1, 1))
    return b.done(b("mul", b("add", x, y), z), LAST)


BODIES: list[Callable[[], Graph]] = [
    row_softmax, column_softmax, masked_softmax, softmax_gradient, layer_norm,
    layer_norm_gradient,
    row_variance, dropped_axes, batch_statistics, cross_entropy, linear_gelu, heads, prologue,
    long_product, turned_blocks, conv_block, pointwise_conv_block, depthwise_block,
    bias_gradient, mean_square, dropout, moves, rotary, gather, sum_of_product, turned_sum,
    strided_layouts,
]  # fmt: skip


def _draw(type: TensorType, rng: np.random.Generator) -> np.ndarray:
    if type.dtype is DType.B1:
        return rng.random(type.shape) < 0.7
    if type.dtype is DType.I64:
        return rng.integers(0, 5, type.shape)
    return rng.standard_normal(type.shape).astype(type.dtype.np)


def fused_case(body: Graph, inplace: int | None = None) -> Case:
    rng = np.random.default_rng(3)
    types = [i.type for i in body.inputs]
    attrs = {"body": body} | ({} if inplace is None else {"inplace": inplace})
    arrays = [_draw(t, rng) for t in types]
    return case("fused", body.type_of(body.outputs[0].value), types, arrays, Attrs(attrs))


def expected(c: Case) -> np.ndarray:
    return ops.get(c.node.op).reference(list(c.arrays), c.node.attrs)


def same(got: np.ndarray, want: np.ndarray) -> None:
    """Compare; long sums lose digits of their size, not of their result's."""
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5 * scale)


def inplace_cases() -> list[Case]:
    update = fused_case(long_product(), inplace=0)
    small = fused_case(softmax_gradient(), inplace=1)
    add = fused_case(strided_layouts(), inplace=0)
    return [update, small, add, fused_case(turned_blocks(), inplace=0)]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [fused_case(make()) for make in BODIES] + inplace_cases()


@pytest.fixture(scope="module")
def library(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(cases, tmp_path_factory.mktemp("fused"))


@pytest.mark.parametrize("number", range(len(BODIES)), ids=[m.__name__ for m in BODIES])
def test_a_fused_body_means_what_its_ops_mean(
    number: int, cases: list[Case], library: Library
) -> None:
    c = cases[number]
    same(library.run(number, c), expected(c))


@pytest.mark.parametrize("number", range(4), ids=["update", "rows", "elementwise", "blocks"])
def test_a_body_in_place_writes_its_operand(
    number: int, cases: list[Case], library: Library
) -> None:
    c = cases[len(BODIES) + number]
    got = library.run(len(BODIES) + number, c)
    same(got, expected(c))


def test_the_comparison_would_notice_another_body(cases: list[Case], library: Library) -> None:
    wrong = expected(cases[0]) * 2
    with pytest.raises(AssertionError):
        same(library.run(0, cases[0]), wrong)
