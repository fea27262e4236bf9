"""What a caller gives is checked before anything runs; each message whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pockc.errors import UserError
from pockc.runtime import Artifact
from pockc.runtime.inputs import check_inputs
from pockc.runtime.manifest import InputSpec
from tests.runtime.toy import N, toy_data

X, TARGET = toy_data(N)


def message(toy: Artifact, *batch: Any) -> str:
    with pytest.raises(UserError) as caught:
        toy.train_step(*batch)
    assert toy.step == 0
    return str(caught.value)


def test_a_missing_target_is_told(toy: Artifact) -> None:
    assert message(toy, X) == (
        "[input-count] train_step takes 2 inputs and got 1\n"
        "    fix  give, in this order: x f32[4,3], target i64[4]"
    )


def test_a_wrong_number_of_rows_is_told(toy: Artifact) -> None:
    assert message(toy, X[:3], TARGET) == (
        "[input-shape] train_step expects x f32[4,3] and got shape [3,3]\n"
        "    fix  give batches of 4 rows, or compile for 3"
    )


def test_all_that_is_wrong_is_told_together(toy: Artifact) -> None:
    assert message(toy, X[:, :2], TARGET.astype(np.float32)) == (
        "[input-shape] train_step expects x f32[4,3] and got shape [4,2]\n"
        "    fix  give the shape that the model was compiled for, or compile for this one\n"
        "[input-type] train_step expects target i64[4] and got float32\n"
        "    fix  convert it: target.astype('int64')"
    )


def test_integers_are_no_floats(toy: Artifact) -> None:
    assert message(toy, X.astype(np.uint8), TARGET) == (
        "[input-type] train_step expects x f32[4,3] and got uint8\n"
        "    fix  convert it: x.astype('float32')"
    )


def test_a_label_out_of_range_is_told_with_its_place(toy: Artifact) -> None:
    wrong = TARGET.copy()
    wrong[2] = 5
    assert message(toy, X, wrong) == (
        "[input-values] train_step got the label 5 in target[2], expected 0 to 4 "
        "(or -100, which does not count)\n"
        "    fix  1 of 4 are out of range: correct the data, or compile the model for more"
    )


def test_rows_that_differ_between_inputs_are_told(toy: Artifact) -> None:
    with pytest.raises(UserError) as caught:
        toy.evaluate([(X[:3], TARGET[:2])])
    assert str(caught.value) == (
        "[input-shape] evaluate expects target i64[3] and got shape [2]\n"
        "    fix  give batches of 3 rows, or compile for 2"
    )


def test_arrays_of_different_rows_are_told(toy: Artifact) -> None:
    with pytest.raises(UserError) as caught:
        toy.evaluate((X, TARGET[:2]))
    assert str(caught.value) == (
        "[data-rows] the arrays have different numbers of rows: x has 4, target has 2\n"
        "    fix  give one row per sample in each"
    )


def test_a_dict_that_lacks_an_input_is_told(toy: Artifact) -> None:
    with pytest.raises(UserError) as caught:
        toy.evaluate({"x": X, "y": TARGET})
    assert str(caught.value) == (
        "[data-names] the data lacks target; it has x, y\n    fix  name the arrays x, target"
    )


def test_no_rows_are_told(toy: Artifact) -> None:
    with pytest.raises(UserError) as caught:
        toy.evaluate((X[:0], TARGET[:0]))
    assert str(caught.value) == (
        "[no-data] there is no row to evaluate\n    fix  give some data"
    )
    with pytest.raises(UserError, match=r"\[partial-batch\] predict has a result for 4 rows"):
        toy.predict(X[:0])


def test_an_unknown_entry_is_told(toy: Artifact) -> None:
    with pytest.raises(UserError) as caught:
        toy.run("backward")
    assert str(caught.value) == (
        "[no-entry] the artifact has no entry point 'backward'\n"
        "    fix  choose from: evaluate, predict, train_step"
    )


def test_values_that_keep_their_meaning_are_converted(toy: Artifact) -> None:
    exact = toy.predict(X)
    for given in (X.astype(np.float64), np.asfortranarray(X), X[::-1][::-1], X.tolist()):
        np.testing.assert_array_equal(toy.predict(given), exact)
    assert toy.train_step(X, TARGET.astype(np.int8)) > 0


def test_integers_are_narrowed_only_if_they_fit() -> None:
    spec = InputSpec("ids", "i32", (2,))
    np.testing.assert_array_equal(check_inputs("e", [spec], [np.array([1, 2])])[0], [1, 2])
    with pytest.raises(UserError) as caught:
        check_inputs("e", [spec], [np.array([1, 2**31])])
    assert "got the value 2147483648 in ids[1], expected -2147483648 to 2147483647" in str(
        caught.value
    )
