"""Which tile a matrix product gets."""

from __future__ import annotations

import itertools

import pytest

from pockc.backends.tvm import targets
from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.tile import product_shape
from pockc.ir.types import DType

WIDE = targets.get("x86-64-v4")


@pytest.mark.parametrize(
    ("columns", "matrices", "vectors"),
    [(768, 1, 3), (3072, 1, 3), (64, 96, 4), (128, 96, 4), (32, 96, 2), (5, 1, 1)],
)
def test_the_tile_leaves_little_of_the_last_panel_unused(
    columns: int, matrices: int, vectors: int
) -> None:
    assert product_shape(Builder(WIDE, 2), DType.F32, columns, matrices, 2).vectors == vectors


@pytest.mark.parametrize("target", [targets.get(n) for n in targets.NAMES], ids=targets.NAMES)
def test_sums_operands_and_a_broadcast_fit_the_registers(target: targets.Target) -> None:
    for columns, threads in itertools.product((1, 17, 64, 768, 1000), (1, 2, 4)):
        shape = product_shape(Builder(target, threads), DType.F32, columns, 1, threads)
        needed = shape.rows * shape.vectors + shape.vectors + 1
        assert shape.lanes == target.vector_floats
        assert 1 <= needed <= target.vector_registers
