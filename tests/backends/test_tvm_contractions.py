"""Products and convolutions over odd sizes, layouts, strides and groups, against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from pockc import ops
from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.types import DType, TensorType
from pockc.ops.windows import conv_shape
from tests.backends.native import Case, Library, case

LAST, FILTERS, DEPTHWISE = (0, 2, 3, 1), (2, 3, 1, 0), (2, 3, 0, 1)
Layout = tuple[int, ...] | None


def _t(shape: Sequence[int], layout: Layout = None, dtype: DType = DType.F32) -> TensorType:
    return TensorType(tuple(shape), dtype, layout)


def _case(op: str, result: TensorType, types: Sequence[TensorType], **attrs: AttrValue) -> Case:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(t.shape).astype(t.dtype.np) for t in types]
    return case(op, result, types, arrays, Attrs(attrs))


def product_cases() -> dict[str, Case]:
    cases = {}
    sizes = [(1, 1, 1), (1, 50, 33), (50, 1, 33), (7, 9, 1), (50, 50, 17), (49, 1000, 24),
             (13, 33, 65), (130, 70, 40), (2, 300, 300), (300, 2, 300),
             (40, 300, 30), (100, 200, 70), (90, 330, 129)]  # fmt: skip
    for (m, n, k), (ta, tb, tc) in itertools.product(
        sizes, [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1)]
    ):
        types = _t((m, k), (1, 0) if ta else None), _t((k, n), (1, 0) if tb else None)
        out = _t((m, n), (1, 0) if tc else None)
        cases[f"{m}x{n}x{k} {ta}{tb}{tc}"] = _case("matmul", out, types)
    heads = (0, 2, 1, 3)
    batched = {
        "batch": (_t((3, 20, 33)), _t((3, 33, 18)), _t((3, 20, 18))),
        "one right": (_t((3, 20, 33)), _t((33, 18)), _t((3, 20, 18))),
        "one left": (_t((20, 33)), _t((3, 33, 18)), _t((3, 20, 18))),
        "groups": (_t((2, 4, 1, 9, 16)), _t((2, 1, 3, 16, 10)), _t((2, 4, 3, 9, 10))),
        "heads": (
            _t((2, 3, 50, 16), heads),
            _t((2, 3, 16, 50), (0, 3, 1, 2)),
            _t((2, 3, 50, 50)),
        ),
        "context": (_t((2, 3, 50, 50)), _t((2, 3, 50, 16), heads), _t((2, 3, 50, 16), heads)),
        "doubles": (
            _t((20, 33), None, DType.F64),
            _t((33, 18), None, DType.F64),
            _t((20, 18), None, DType.F64),
        ),
        "blocks of turned rows": (_t((1100, 1000), (1, 0)), _t((1000, 200)), _t((1100, 200))),
        "long": (_t((9, 70000), (1, 0)), _t((70000, 35)), _t((9, 35))),
    }
    return cases | {n: _case("matmul", r, (x, y)) for n, (x, y, r) in batched.items()}


GEOMETRY = [
    # images, filters, stride, padding, dilation, groups
    ((2, 20, 7, 7), (33, 20, 1, 1), 1, 0, 1, 1),
    ((1, 20, 8, 9), (17, 20, 1, 1), 2, 0, 1, 1),
    ((2, 18, 14, 14), (20, 18, 3, 3), 1, 1, 1, 1),
    ((1, 3, 17, 19), (20, 3, 3, 3), 2, 1, 1, 1),
    ((2, 5, 9, 9), (6, 5, 3, 3), 1, 2, 2, 1),
    ((1, 5, 11, 11), (6, 5, 3, 3), 2, 2, 2, 1),
    ((1, 6, 9, 9), (4, 6, 3, 3), 3, 0, 1, 1),
    ((1, 4, 5, 5), (7, 4, 5, 5), 1, 2, 1, 1),
    ((1, 4, 8, 8), (6, 4, 2, 2), 2, 0, 1, 1),
    ((2, 4, 40, 1), (6, 4, 5, 1), 1, (2, 0), 1, 1),
    ((2, 4, 1, 40), (6, 4, 1, 5), (1, 2), (0, 2), 1, 1),
    ((2, 12, 7, 7), (18, 4, 3, 3), 1, 1, 1, 3),
    ((1, 8, 7, 7), (16, 1, 3, 3), 2, 1, 1, 8),
    ((2, 20, 7, 9), (20, 1, 3, 3), 1, 1, 1, 20),
    ((1, 35, 11, 10), (35, 1, 5, 5), 2, 2, 1, 35),
    ((1, 6, 9, 9), (6, 1, 3, 3), 1, 2, 2, 6),
    ((1, 6, 4, 4), (6, 1, 7, 7), 1, 3, 1, 6),
]  # fmt: skip


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def convolution_cases() -> dict[str, Case]:
    cases = {}
    for number, (x, w, stride, padding, dilation, groups) in enumerate(GEOMETRY):
        attrs: dict[str, AttrValue] = {
            "stride": _pair(stride), "padding": _pair(padding), "dilation": _pair(dilation),
            "groups": groups,
        }  # fmt: skip
        y = conv_shape(_t(x), _t(w), Attrs(attrs))
        plain: list[tuple[Layout, Layout]] = [(LAST, DEPTHWISE if w[1] == 1 else FILTERS)]
        for images, filters in plain + [(None, None)] * (number % 3 == 1):
            tx, tw, ty = _t(x, images), _t(w, filters), _t(y, images)
            name = f"{number} {'last' if images else 'first'}"
            cases[f"forward {name}"] = _case("conv2d", ty, (tx, tw), **attrs)
            cases[f"input {name}"] = _case(
                "conv2d_grad_input", tx, (ty, tw), input_shape=x, **attrs
            )
            cases[f"weight {name}"] = _case(
                "conv2d_grad_weight", tw, (tx, ty), weight_shape=w, **attrs
            )
    return cases


CASES = {**product_cases(), **convolution_cases()}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(list(CASES.values()), tmp_path_factory.mktemp("contractions"))


def expected(c: Case) -> np.ndarray:
    doubles = [a.astype(np.float64) for a in c.arrays]
    return ops.get(c.node.op).reference(doubles, c.node.attrs)


@pytest.mark.parametrize("name", CASES)
def test_a_contraction_is_exact_to_rounding(name: str, library: Library) -> None:
    c = CASES[name]
    want = expected(c)
    scale = max(1.0, float(np.abs(want).max()))
    got = library.run(list(CASES).index(name), c)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * scale)


def test_a_turned_operand_would_be_noticed(library: Library) -> None:
    name = "50x50x17 000"
    got = library.run(list(CASES).index(name), CASES[name])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(got.T, expected(CASES[name]), rtol=1e-5, atol=1e-4)
