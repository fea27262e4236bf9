"""The comparisons reject what is wrong: otherwise no other test would mean anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockc.ir import DType
from tests.conftest import unread_goldens
from tests.support import Golden, close, graph, random_inputs, same_results
from tests.tolerances import EXACT, TABLE, tolerance

RIGHT = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
WRONG = {
    "factor 2": RIGHT * 2,
    "sign": -RIGHT,
    "zeros": RIGHT * 0,
    "nan": np.where(RIGHT > 1.9, np.float32("nan"), RIGHT),
    "shape": RIGHT.reshape(4, 3),
    "transposed": np.ascontiguousarray(RIGHT.reshape(4, 3).T),
    "dtype": RIGHT.astype(np.float64),
    "one element": RIGHT + np.float32(0.05) * (RIGHT > 1.9),
}


@pytest.mark.parametrize("kind", sorted({kind for _, kind in TABLE}))
@pytest.mark.parametrize("name", WRONG)
def test_a_comparison_by_the_table_rejects(name: str, kind: str) -> None:
    allowed = tolerance(DType.F32, kind) if (DType.F32, kind) in TABLE else EXACT
    close(RIGHT, RIGHT.copy(), allowed)
    with pytest.raises(AssertionError):
        close(WRONG[name], RIGHT, allowed)


def test_an_exact_comparison_rejects_the_last_bit() -> None:
    off = np.nextafter(RIGHT, np.float32(9))
    close(off, RIGHT, tolerance(DType.F32, "rewrite"))
    with pytest.raises(AssertionError):
        close(off, RIGHT, EXACT)


TWICE = """
%x : f32[3,4] = input batch "x"
%y : f32[3,4] = add(%x, %x)
output prediction "0" %y
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("add(%x, %x)", "mul(%x, %x)"),
        ("add(%x, %x)", "neg(%x)"),
        ('output prediction "0" %y', 'output prediction "0" %x'),
        ('output prediction "0" %y', 'output prediction "1" %y'),
    ],
)
def test_same_results_rejects_another_graph(old: str, new: str) -> None:
    same_results(graph(TWICE), graph(TWICE))
    with pytest.raises(AssertionError):
        same_results(graph(TWICE), graph(TWICE.replace(old, new)))


def test_random_inputs_are_the_same_every_time() -> None:
    first, second = random_inputs(graph(TWICE)), random_inputs(graph(TWICE))
    assert all(np.array_equal(first[r], second[r]) for r in first)


def test_a_golden_text_must_be_there_and_equal(tmp_path: Path) -> None:
    read: list[Path] = []
    golden = Golden(tmp_path, "a/b.pock", bless=False, read=read.append)
    with pytest.raises(AssertionError, match="no golden text"):
        golden.check("text")
    Golden(tmp_path, "a/b.pock", bless=True).check("text")
    golden.check("text")
    with pytest.raises(AssertionError, match="differs"):
        golden.check("other text")
    assert set(read) == {tmp_path / "a/b.pock"}


def test_a_golden_text_that_no_test_reads_is_found(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "passes/golden/x").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"passes/golden/x/{name}.pock").write_text(name)
    assert unread_goldens(tmp_path, {str(tmp_path / "passes/golden/x/one.pock")}) == [
        "passes/golden/x/two.pock"
    ]
