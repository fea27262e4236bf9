"""Winograd's convolutions: transforms, kernels over awkward shapes, errors, the choice."""

from __future__ import annotations

import numpy as np
import pytest

from pockc import ops
from pockc.backends.tvm import targets
from pockc.backends.tvm.body import Store
from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.kernels import winograd
from pockc.backends.tvm.lines import forward_line, gradient_lines
from pockc.backends.tvm.tir import argument
from pockc.backends.tvm.toom_cook import F2, F4, Scheme
from pockc.backends.tvm.values import stored
from pockc.ir.attrs import Attrs
from pockc.ir.graph import Graph
from pockc.ir.types import DType, TensorType, f32
from pockc.ops.windows import conv_shape
from tests.backends.native import Case, Library, case
from tests.backends.test_tvm_fused import LAST, Body, fused_case
from tests.support import close
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_tvm

FILTERS = (2, 3, 1, 0)
TABLE = tolerance(DType.F32, "kernel")
SCHEMES = {"F2": F2, "F4": F4}
USUAL = Scheme(4, 3, (0.0, 1.0, -1.0, 2.0, -2.0))

SHAPES = [
    # images, filters, padding
    ((1, 3, 13, 9), (5, 3, 3, 3), 1),
    ((3, 17, 7, 7), (64, 17, 3, 3), 1),
    ((3, 64, 14, 14), (17, 64, 3, 3), 1),
    ((1, 5, 13, 9), (65, 5, 3, 3), 0),
    ((2, 16, 3, 5), (16, 16, 3, 3), 2),
    ((1, 256, 7, 7), (33, 256, 3, 3), 1),  # channels of a panel in several blocks
    ((3, 20, 33, 18), (150, 20, 3, 3), 1),  # images in several chunks
]  # fmt: skip


def _case(x: tuple[int, ...], w: tuple[int, ...], padding: int, op: str, layout: bool) -> Case:
    """Return a case as it is in a net: inputs after a rectifier, filters of He's magnitude."""
    attrs = {
        "stride": (1, 1), "padding": (padding, padding), "dilation": (1, 1), "groups": 1,
    }  # fmt: skip
    images = LAST if layout else None
    tx, tw = TensorType(x, DType.F32, images), TensorType(w, DType.F32, FILTERS)
    y = tx.with_shape(conv_shape(tx, tw, Attrs(attrs)))
    rng = np.random.default_rng(5)
    filters = rng.standard_normal(w) * np.sqrt(2 / (9 * w[1]))
    source = y if op == "conv2d_grad_input" else tx
    values = np.maximum(rng.standard_normal(source.shape), 0)
    arrays = [values.astype(np.float32), filters.astype(np.float32)]
    if op == "conv2d_grad_input":
        return case(op, tx, (y, tw), arrays, Attrs({**attrs, "input_shape": x}))
    return case(op, y, (tx, tw), arrays, Attrs(attrs))


def block() -> Graph:
    """A residual block's end: a computed operand, bias, sum and rectifier."""
    b = Body()
    image = TensorType((2, 20, 9, 10), DType.F32, LAST)
    x, r, z = b.input(image), b.input(image), b.input(f32(20, 1, 1))
    w = b.input(TensorType((20, 20, 3, 3), DType.F32, FILTERS))
    h = b("conv2d", b("mul", x, b.number(0.5)), w, stride=(1, 1), padding=(1, 1),
          dilation=(1, 1), groups=1)  # fmt: skip
    return b.done(b("maximum", b("add", b("add", h, z), r), b.number(0.0)), LAST)


CASES = {
    **{
        f"{op} {number}": _case(*shape, op, True)
        for number, shape in enumerate(SHAPES)
        for op in ("conv2d", "conv2d_grad_input")
    },
    "channels first": _case((2, 18, 9, 9), (20, 18, 3, 3), 1, "conv2d", False),
    "block": fused_case(block()),
    **{
        f"{channels} channels": _case(
            (1, channels, 8, 8), (32, channels, 3, 3), 1, "conv2d", True
        )
        for channels in (64, 512, 1024)
    },
}


@pytest.fixture(scope="module", params=SCHEMES)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Library:
    """The cases with one scheme for all of them, whatever it costs."""
    folder = tmp_path_factory.mktemp("winograd")
    with pytest.MonkeyPatch.context() as patch:
        scheme = SCHEMES[request.param]
        patch.setattr(winograd, "COSTS", {scheme: winograd.COSTS[scheme]})
        patch.setattr(winograd, "WORTH", float("inf"))
        patch.setenv("POCKC_CACHE", str(folder / "cache"))
        return Library(list(CASES.values()), folder)


def expected(c: Case) -> np.ndarray:
    """Return the reference in double precision."""
    if c.node.op == "fused":
        return ops.get("fused").reference(list(c.arrays), c.node.attrs)
    doubles = [a.astype(np.float64) for a in c.arrays]
    return ops.get(c.node.op).reference(doubles, c.node.attrs).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_by_transforms_is_its_reference(name: str, library: Library) -> None:
    close(library.run(list(CASES).index(name), CASES[name]), expected(CASES[name]), TABLE)


def test_filters_that_are_turned_would_be_noticed(library: Library) -> None:
    name = "conv2d 1"
    got = library.run(list(CASES).index(name), CASES[name])
    x, w = CASES[name].arrays
    turned = case("conv2d", CASES[name].node.type, CASES[name].types,
                  (x, w[:, :, ::-1, ::-1]), CASES[name].node.attrs)  # fmt: skip
    with pytest.raises(AssertionError):
        close(got, expected(turned), TABLE)


@pytest.mark.parametrize("scheme", [*SCHEMES.values(), USUAL], ids=lambda s: f"{s.points}")
def test_a_scheme_is_a_correlation(scheme: Scheme) -> None:
    rng = np.random.default_rng(2)
    data, taps = rng.standard_normal(scheme.n), rng.standard_normal(scheme.r)
    products = (np.array(scheme.filter) @ taps) * (np.array(scheme.data) @ data)
    want = np.correlate(data, taps, "valid")
    np.testing.assert_allclose(
        np.array(scheme.result).T @ products, want, rtol=1e-9, atol=1e-10
    )


def _error(scheme: Scheme, channels: int) -> float:
    """Return the root mean square error of one-dimensional sums over channels in f32."""
    rng = np.random.default_rng(3)
    data = np.maximum(rng.standard_normal((200, channels, scheme.n)), 0).astype(np.float32)
    taps = rng.standard_normal((channels, scheme.r)).astype(np.float32)
    to_data, to_taps, back = (
        np.array(m, np.float32) for m in (scheme.data, scheme.filter, scheme.result)
    )
    products = ((data @ to_data.T) * (taps @ to_taps.T)).cumsum(axis=1, dtype=np.float32)[:, -1]
    windows = np.lib.stride_tricks.sliding_window_view(
        data.astype(np.float64), scheme.r, axis=2
    )
    want = np.einsum("tcmr,cr->tm", windows, taps)
    return float(np.sqrt(np.mean((products @ back - want) ** 2)) / np.abs(want).max())


def test_our_points_err_less_than_the_usual_ones_and_more_than_smaller_tiles() -> None:
    for channels in (64, 256, 512):
        assert _error(F2, channels) < _error(F4, channels) < 0.8 * _error(USUAL, channels)


def chosen(
    x: tuple[int, ...], w: tuple[int, ...], *, stride: int = 1, dilation: int = 1,
    dtype: DType = DType.F32, groups: int = 1, gradient: bool = False,
) -> int | None:  # fmt: skip
    """Return how wide the tiles are that are chosen for a convolution, None if for none."""
    b = Builder(targets.get("x86-64-v4"), 2)
    k, c, r, s = w
    padding = dilation * (r // 2)
    sizes = [(n + 2 * padding - dilation * (r - 1) - 1) // stride + 1 for n in x[2:]]
    sides = [(n, o, r, stride, padding, dilation) for n, o in zip(x[2:], sizes, strict=True)]
    lines = [gradient_lines(*g) if gradient else [forward_line(*g)] for g in sides]
    into, out = (k, c) if gradient else (c, k)
    images = (x[0], into * groups, *(sizes if gradient else x[2:]))
    results = (x[0], out * groups, *(x[2:] if gradient else sizes))
    image, filters, result = (
        stored(TensorType(shape, dtype), argument(name, 1, dtype))
        for name, shape in (("x", images), ("w", (groups, r, s, into, out)), ("y", results))
    )
    found = winograd.choose(b, image, filters, Store(result), lines)
    return None if found is None else found.of.scheme.m


def test_large_convolutions_take_large_tiles_and_small_images_small_ones() -> None:
    assert chosen((4, 64, 56, 56), (64, 64, 3, 3)) == 4
    assert chosen((4, 64, 56, 56), (64, 64, 3, 3), gradient=True) == 4
    assert chosen((4, 512, 7, 7), (512, 512, 3, 3)) == 4
    assert chosen((1, 512, 7, 7), (512, 512, 3, 3)) == 2
    assert chosen((4, 512, 4, 4), (512, 512, 3, 3)) == 2


def test_what_transforms_cannot_do_or_do_not_speed_up_is_convolved_directly() -> None:
    usual = (4, 64, 56, 56), (64, 64, 3, 3)
    assert chosen(*usual, stride=2) is None
    assert chosen(*usual, stride=2, gradient=True) is None
    assert chosen(*usual, dilation=2) is None
    assert chosen(*usual, groups=2) is None
    assert chosen(*usual, dtype=DType.F64) is None
    assert chosen((4, 64, 56, 56), (64, 64, 5, 5)) is None
    assert chosen((8, 3, 56, 56), (16, 3, 3, 3)) is None
    assert chosen((8, 4, 56, 56), (4, 4, 3, 3)) is None
    assert chosen((1, 8, 8, 8), (8, 8, 3, 3)) is None
