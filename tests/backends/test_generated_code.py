"""The inner loops of products and convolutions, as the assembler gets them."""

from __future__ import annotations

import sys

import pytest

from pockc.backends.tvm import targets, tile
from pockc.backends.tvm.builder import Builder
from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.types import DType, TensorType
from pockc.plan.runtime_memory import STACK_BYTES
from tests.backends.assembly import (
    APART,
    FUSED,
    SPILL,
    STACK,
    STORE,
    Loop,
    assembly,
    frame_bytes,
    innermost_loops,
    product_loops,
)
from tests.backends.native import Case, case

pytestmark = pytest.mark.needs_tvm

LAST, FILTERS = (0, 2, 3, 1), (2, 3, 1, 0)
TARGETS = [n for n in targets.NAMES if n not in ("host", "zero2")]  # zero2 is rpi3's processor


def _t(*shape: int, layout: tuple[int, ...] | None = None) -> TensorType:
    return TensorType(shape, DType.F32, layout)


def _case(op: str, result: TensorType, *types: TensorType, **attrs: AttrValue) -> Case:
    return case(op, result, types, [], Attrs(attrs))


def _convolution(op: str, channels: int, size: int, filters: int, window: int) -> Case:
    image = _t(2, channels, size, size, layout=LAST)
    result = _t(2, filters, size, size, layout=LAST)
    weight = _t(filters, channels, window, window, layout=FILTERS)
    types = {
        "conv2d": (result, image, weight),
        "conv2d_grad_input": (image, result, weight),
        "conv2d_grad_weight": (weight, image, result),
    }[op]
    pads = (window // 2,) * 2
    return _case(op, *types, stride=(1, 1), padding=pads, dilation=(1, 1), groups=1)


CASES = {
    "product": _case("matmul", _t(128, 768), _t(128, 768), _t(768, 768)),
    "left turned": _case("matmul", _t(128, 768), _t(128, 768, layout=(1, 0)), _t(768, 768)),
    "right turned": _case("matmul", _t(128, 768), _t(128, 768), _t(768, 768, layout=(1, 0))),
    "conv 5x5": _convolution("conv2d", 64, 28, 64, 5),
    "conv 1x1": _convolution("conv2d", 96, 14, 576, 1),
    "conv 5x5, input gradient": _convolution("conv2d_grad_input", 64, 28, 64, 5),
    "conv 5x5, weight gradient": _convolution("conv2d_grad_weight", 64, 28, 64, 5),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_the_inner_loop_multiplies_and_adds_in_one_and_keeps_its_sums(
    name: str, target: str
) -> None:
    registers = targets.get(target).vector_registers
    loops = product_loops(CASES[name], target)
    for loop in loops:
        assert loop.count(APART) == 0, str(loop)
        assert loop.count(SPILL) == 0, str(loop)
        assert loop.count(STORE) == 0, str(loop)
    # The tile takes what registers there are, and leaves those that the operands pass through.
    whole = [loop for loop in loops if loop.vector_registers() >= registers * 0.8]
    assert whole
    assert not any(loop.count(STACK) for loop in whole)
    # Most operands are in registers: half an instruction more for each multiply-add, and one
    # where there are 16 registers. Those of armv7 hold 4 numbers, so it moves more of them.
    widest = max(loops, key=Loop.vector_registers)
    others = len(widest.instructions) - widest.count(FUSED)
    allowed = 1.4 if target == "armv7" else 1.3 if registers == 16 else 0.8
    assert others <= widest.count(FUSED) * allowed, str(widest)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_takes_little_of_a_stack(name: str, target: str) -> None:
    assert frame_bytes(assembly(CASES[name], target)) <= STACK_BYTES // 4


def test_frames_are_found_in_text() -> None:
    assert frame_bytes(" sub sp, sp, #16\n\tsub\tsp, sp, #1, lsl #12\n") == 16 + 4096
    assert frame_bytes("\tsubq\t$2752, %rsp\n\tsubq %rax, %rdx\n") == 2752


def test_a_tile_that_is_too_large_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("best_shape", "product_shape"):
        right = getattr(tile, name)
        for module in list(sys.modules.values()):
            if getattr(module, name, None) is right:
                monkeypatch.setattr(module, name, lambda *_: tile.Shape(8, 4, 4))
    loops = product_loops(CASES["product"], "rpi4")
    assert any(loop.count(SPILL) for loop in loops)


def test_the_tiles_are_those_of_the_table() -> None:
    shapes = {n: tile.best_shape(Builder(targets.get(n), 1), DType.F32, 768) for n in TARGETS}
    assert {n: (s.rows, s.vectors) for n, s in shapes.items()} == {
        "x86-64-v3": (6, 2),
        "x86-64-v4": (14, 2),
        "aarch64": (6, 4),
        "rpi3": (5, 4),
        "rpi4": (6, 4),
        "rpi5": (6, 4),
        "jetson-nano": (6, 4),
        "jetson-xavier": (6, 4),
        "jetson-orin": (6, 4),
        "armv7": (5, 2),
    }


def test_loops_are_found_in_text() -> None:
    text = """
f:
 fmla v0.4s, v1.4s, v2.4s // a comment
.LBB0_1:
 ldr q1, [x0], #16
.LBB0_2:
 fmla v0.4s, v1.4s, v2.s[0]
 str q0, [sp, #16]
 subs x2, x2, #1
 b.ne .LBB0_2
 cbnz x3, .LBB0_1
 b .LBB0_3
.LBB0_3:
 ret
"""
    (loop,) = innermost_loops(text, "aarch64")
    assert len(loop.instructions) == 4
    assert [loop.count(p) for p in (FUSED, APART, SPILL, STORE)] == [1, 0, 1, 1]
