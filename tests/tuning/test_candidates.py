"""Every candidate of every family computes what its kernel computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc.backends.schedule import Schedule
from pockc.backends.tvm import BACKEND
from pockc.errors import UserError
from pockc.ir.attrs import Attrs
from pockc.ir.types import DType, TensorType
from tests.backends.native import Case, call, case, link_objects

pytestmark = [pytest.mark.needs_tvm, pytest.mark.slow]

LAST, FILTERS, DEPTHWISE = (0, 2, 3, 1), (2, 3, 1, 0), (2, 3, 0, 1)


def _t(*shape: int, layout: tuple[int, ...] | None = None) -> TensorType:
    return TensorType(shape, DType.F32, layout)


def _case(op: str, result: TensorType, *types: TensorType, **attrs: object) -> Case:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(t.shape).astype(np.float32) for t in types]
    return case(op, result, types, arrays, Attrs(attrs))  # type: ignore[arg-type]


_PLAIN = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
_DEPTH = {**_PLAIN, "groups": 37}
_IMAGE, _WIDE = _t(2, 19, 14, 14, layout=LAST), _t(2, 145, 14, 14, layout=LAST)
_HALF = _t(2, 145, 7, 7, layout=LAST)
_CHANNELS = _t(2, 37, 14, 14, layout=LAST)
_W, _W37 = _t(145, 19, 3, 3, layout=FILTERS), _t(37, 1, 3, 3, layout=DEPTHWISE)

CASES = {
    "product": (_case("matmul", _t(98, 200), _t(98, 300), _t(300, 200)), "vectors"),
    "packed product": (
        _case("matmul", _t(98, 70), _t(98, 300), _t(300, 70, layout=(1, 0))), "share"),
    "batched product": (
        _case("matmul", _t(6, 50, 150), _t(6, 50, 64), _t(6, 64, 150)), "order"),
    "long product": (
        _case("matmul", _t(24, 40), _t(24, 3000, layout=(1, 0)), _t(3000, 40)), "form"),
    "convolution": (_case("conv2d", _WIDE, _IMAGE, _W, **_PLAIN), "form"),
    "strided convolution": (
        _case("conv2d", _HALF, _IMAGE, _W, **{**_PLAIN, "stride": (2, 2)}), "block"),
    "input gradient": (_case("conv2d_grad_input", _IMAGE, _WIDE, _W, **_PLAIN), "rows"),
    "weight gradient": (_case("conv2d_grad_weight", _W, _IMAGE, _WIDE, **_PLAIN), "form"),
    "depthwise": (_case("conv2d", _CHANNELS, _CHANNELS, _W37, **_DEPTH), "columns"),
    "depthwise weight gradient": (
        _case("conv2d_grad_weight", _W37, _CHANNELS, _CHANNELS, **_DEPTH), "block"),
    "elementwise": (_case("tanh", _t(40, 1000), _t(40, 1000)), "parallel_work"),
    "rows": (_case("reduce_sum", _t(300), _t(300, 400), axes=(1,), keepdims=False),
             "parallel_work"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_candidate_computes_what_the_default_does(name: str, tmp_path: Path) -> None:
    given, choice = CASES[name]
    (kernel,) = BACKEND.select(given.graph, "host", 2).kernels.values()
    candidates = BACKEND.candidates(kernel)
    assert choice in {c for k in candidates for c in k.schedule.choices}
    assert len({k.symbol for k in (kernel, *candidates)}) == len(candidates) + 1
    library = link_objects(BACKEND.build([kernel, *candidates]), tmp_path, 2)
    expected = call(library, kernel.symbol, kernel.workspace_bytes, given)
    scale = np.abs(expected).max()
    for k in candidates:
        found = call(library, k.symbol, k.workspace_bytes, given)
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=2e-5 * scale, err_msg=str(k.schedule)
        )


def test_a_schedule_is_used_and_changes_the_code_and_not_the_symbol() -> None:
    given, _ = CASES["product"]
    (usual,) = BACKEND.select(given.graph).kernels.values()
    schedules = {usual.symbol: Schedule(vectors=1)}
    (other,) = BACKEND.select(given.graph, schedules=schedules).kernels.values()
    assert (other.symbol, other.schedule) == (usual.symbol, Schedule(vectors=1))
    assert BACKEND.build([usual]) != BACKEND.build([other])


@pytest.mark.parametrize(
    ("schedule", "offers"),
    [(Schedule(rows=999), "offers 14, 7"), (Schedule(columns=3), "offers no such choice")],
)
def test_a_choice_that_the_generator_does_not_offer_is_refused(
    schedule: Schedule, offers: str
) -> None:
    given, _ = CASES["product"]
    (kernel,) = BACKEND.select(given.graph, "x86-64-v4").kernels.values()
    with pytest.raises(UserError, match=r"unknown-choice") as found:
        BACKEND.select(given.graph, "x86-64-v4", 2, {kernel.symbol: schedule})
    assert str(schedule) in str(found.value)
    if offers:
        assert "its generator offers" in str(found.value)


def test_candidates_do_not_buy_speed_with_memory() -> None:
    given, _ = CASES["packed product"]
    (kernel,) = BACKEND.select(given.graph).kernels.values()
    most = sum(kernel.workspace_bytes) + (1 << 18)
    assert all(sum(k.workspace_bytes) <= most for k in BACKEND.candidates(kernel))
    assert BACKEND.candidates(replace(kernel, threads=1))
