"""Poolings and their gradients over windows, strides, paddings, dilations and ties."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pockc import ops
from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.graph import Graph
from pockc.ir.types import DType, TensorType
from pockc.ops.windows import pool_shape
from tests.backends.native import Case, Library, case
from tests.backends.test_tvm_fused import LAST, Body, fused_case
from tests.support import close
from tests.tolerances import tolerance

pytestmark = pytest.mark.needs_tvm

GEOMETRY = [
    # images, window, stride, padding, dilation, whether windows may hang over
    ((2, 16, 12, 12), 3, 2, 1, 1, False),
    ((1, 64, 14, 13), 2, 2, 0, 1, False),
    ((3, 17, 13, 9), 3, 1, 1, 1, False),
    ((1, 35, 11, 10), 5, 1, 2, 1, False),
    ((2, 3, 9, 8), 3, 2, 0, 1, True),
    ((1, 5, 15, 14), 3, 1, 1, 2, False),
    ((1, 20, 17, 16), 3, 2, 1, 3, False),
    ((1, 18, 11, 12), 2, 3, 0, 1, False),
    ((2, 4, 40, 1), (5, 1), (2, 1), (1, 0), 1, False),
    ((2, 4, 1, 40), (1, 4), (1, 3), (0, 2), 1, True),
    ((1, 19, 21, 20), 7, 6, 3, 1, False),
    ((2, 33, 28, 28), 28, 28, 0, 1, False),
    ((4, 64, 30, 30), 3, 2, 1, 1, False),
]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _case(op: str, result: TensorType, types: Sequence[TensorType], attrs: Attrs) -> Case:
    """Return a case whose images hold few different numbers: windows with equal maxima."""
    rng = np.random.default_rng(7)
    arrays = [rng.integers(-2, 3, types[0].shape).astype(np.float32)]
    arrays += [rng.standard_normal(t.shape).astype(np.float32) for t in types[1:]]
    return case(op, result, types, arrays, attrs)


def pooling_cases() -> dict[str, Case]:
    cases = {}
    for number, (x, window, stride, padding, dilation, ceil) in enumerate(GEOMETRY):
        attrs: dict[str, AttrValue] = {
            "kernel": _pair(window), "stride": _pair(stride), "padding": _pair(padding),
            "ceil_mode": ceil,
        }  # fmt: skip
        for layout in [LAST] + [None] * (number % 4 == 0):
            name = f"{number} {'last' if layout else 'first'}"
            images = TensorType(x, DType.F32, layout)
            form = Attrs({**attrs, "dilation": _pair(dilation)})
            pooled = TensorType(pool_shape(x, form), DType.F32, layout)
            cases[f"max {name}"] = _case("max_pool2d", pooled, (images,), form)
            cases[f"max gradient {name}"] = _case(
                "max_pool2d_grad", images, (images, pooled), form
            )
            form = Attrs({**attrs, "count_include_pad": number % 2 == 0})
            pooled = TensorType(pool_shape(x, form), DType.F32, layout)
            cases[f"mean {name}"] = _case("avg_pool2d", pooled, (images,), form)
            form = Attrs({**form, "input_shape": x})
            cases[f"mean gradient {name}"] = _case("avg_pool2d_grad", images, (pooled,), form)
    return cases


def masked_gradient() -> Graph:
    """The gradient of a rectifier and a max pooling: the mask is the epilogue."""
    b = Body()
    x = b.input(TensorType((2, 20, 13, 14), DType.F32, LAST))
    dy = b.input(TensorType((2, 20, 7, 7), DType.F32, LAST))
    dx = b("max_pool2d_grad", x, dy, kernel=(3, 3), stride=(2, 2), padding=(1, 1),
           dilation=(1, 1), ceil_mode=False)  # fmt: skip
    return b.done(b("where", b("le", x, b.number(0.0)), b.number(0.0), dx), LAST)


CASES = {**pooling_cases(), "masked": fused_case(masked_gradient())}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(list(CASES.values()), tmp_path_factory.mktemp("pooling"))


def expected(c: Case) -> np.ndarray:
    return ops.get(c.node.op).reference(list(c.arrays), c.node.attrs)


@pytest.mark.parametrize("name", CASES)
def test_a_pooling_is_its_reference(name: str, library: Library) -> None:
    got = library.run(list(CASES).index(name), CASES[name])
    close(got, expected(CASES[name]), tolerance(DType.F32, "kernel"))


def test_the_last_of_equal_maxima_instead_of_the_first_would_be_noticed(
    library: Library,
) -> None:
    name = "max gradient 0 last"
    c = CASES[name]
    turned = [a[:, :, ::-1, ::-1] for a in c.arrays]
    attrs = Attrs({**c.node.attrs, "padding": (1, 1)})
    last = ops.get("max_pool2d_grad").reference(turned, attrs)[:, :, ::-1, ::-1]
    got = library.run(list(CASES).index(name), c)
    with pytest.raises(AssertionError):
        close(got, np.ascontiguousarray(last), tolerance(DType.F32, "kernel"))


def test_a_window_of_minus_infinity_gives_to_its_first_element(tmp_path: Path) -> None:
    images = TensorType((1, 16, 4, 4), DType.F32, LAST)
    pooled = images.with_shape((1, 16, 2, 2))
    attrs = Attrs({
        "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1),
        "ceil_mode": False,
    })  # fmt: skip
    arrays = [np.full(images.shape, -np.inf, np.float32), np.ones(pooled.shape, np.float32)]
    c = case("max_pool2d_grad", images, (images, pooled), arrays, attrs)
    got = Library([c], tmp_path).run(0, c)
    want = np.zeros(images.shape, np.float32)
    want[:, :, ::2, ::2][:, :, :1, :1] = 1
    want[0, :, 0, 1] = want[0, :, 1, 0] = want[0, :, 1, 1] = 1
    np.testing.assert_array_equal(got, want)
