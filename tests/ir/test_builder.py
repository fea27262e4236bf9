"""The builder infers types, names values and says what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pockc import interp
from pockc.errors import UserError
from pockc.ir import Batch, DType, Loss, Source, f32
from pockc.ir.builder import GraphBuilder


def test_names_are_made_unique_and_equal_scalars_are_one_value() -> None:
    b = GraphBuilder()
    x = b.input(Batch("x"), f32(2))
    assert [b.emit("neg", x), b.emit("neg", x), b.emit("neg", x, name="a.b")] == [
        "neg",
        "neg_1",
        "a_b",
    ]
    assert b.scalar(2.0) == b.scalar(2.0)
    assert b.scalar(2.0) != b.scalar(2.0, DType.F64)


def test_operands_that_do_not_fit_are_shown_with_their_types_and_the_users_line() -> None:
    b = GraphBuilder()
    x, w = b.input(Batch("x"), f32(2, 3), "x"), b.input(Batch("w"), f32(4, 5), "w")
    with pytest.raises(UserError) as caught:
        b.emit("matmul", x, w, source=Source("model.py", 3, "forward", "return x @ w"))
    assert str(caught.value) == (
        "[type-rule] matmul: f32[2,3] times f32[4,5]: 3 and 4 differ\n"
        "    at   %matmul = matmul(%x, %w)  with %x: f32[2,3], %w: f32[4,5]\n"
        "    from model.py:3 in forward: return x @ w"
    )


def test_an_unknown_op_names_the_nearest() -> None:
    with pytest.raises(UserError, match="there is no op 'mattmul'; did you mean matmul"):
        GraphBuilder().emit("mattmul")


def test_the_interpreter_wants_every_input_in_its_type() -> None:
    b = GraphBuilder()
    x, y = b.input(Batch("x"), f32(2), "x"), b.input(Batch("y"), f32(), "y")
    b.output(Loss(), b.emit("mul", x, y))
    graph = b.build()
    two = np.array([1, 2], np.float32)
    result = interp.run(graph, {Batch("x"): two, Batch("y"): np.float32(3)})
    assert result[Loss()].tolist() == [3, 6]
    with pytest.raises(UserError) as caught:
        interp.run(graph, {Batch("x"): two.astype(np.float64)})
    assert str(caught.value) == (
        "[interp-input] Batch(name='x') is float64[2], expected f32[2]\n    at   %x\n"
        "[interp-input] Batch(name='y') is not given\n    at   %y"
    )
