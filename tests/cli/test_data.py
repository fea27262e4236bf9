"""Reading .npz files, and what is said about those that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pockc.cli.data import read_data
from pockc.errors import UserError
from pockc.runtime.manifest import InputSpec

IMAGE = InputSpec("pixel_values", "f32", (4, 3))
MASK = InputSpec("mask", "i64", (4, 3))
TARGET = InputSpec("target", "i64", (4,))


def save(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def message(path: Path, *specs: InputSpec) -> str:
    with pytest.raises(UserError) as caught:
        read_data(path, specs, "train")
    return str(caught.value).replace(str(path), "data.npz")


@pytest.mark.parametrize("name", ["pixel_values", "x", "X", "input", "inputs"])
@pytest.mark.parametrize("target", ["target", "targets", "y", "label", "labels"])
def test_the_only_input_and_the_target_have_usual_names(
    tmp_path: Path, name: str, target: str
) -> None:
    path = save(tmp_path, **{name: np.ones(3), target: np.zeros(3), "other": np.ones(1)})
    found = read_data(path, (IMAGE, TARGET), "train")
    assert list(found) == ["pixel_values", "target"]
    np.testing.assert_array_equal(found["pixel_values"], np.ones(3))


def test_several_inputs_go_by_name_or_number(tmp_path: Path) -> None:
    path = save(tmp_path, x0=np.ones(2), mask=np.zeros(2), y=np.ones(2))
    found = read_data(path, (IMAGE, MASK, TARGET), "train")
    np.testing.assert_array_equal(found["mask"], np.zeros(2))


def test_the_inputs_own_name_wins(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.ones(2), pixel_values=np.zeros(2))
    found = read_data(path, (IMAGE,), "predict")
    np.testing.assert_array_equal(found["pixel_values"], np.zeros(2))


def test_all_missing_arrays_are_told_with_the_names_that_are_accepted(tmp_path: Path) -> None:
    path = save(tmp_path, lables=np.ones(2), masks=np.ones(2))
    assert message(path, IMAGE, MASK, TARGET) == (
        "[data-names] train needs an array 'pixel_values', the file has lables, masks\n"
        "    at   data.npz\n"
        "    fix  call it pixel_values or x0 or x_0\n"
        "[data-names] train needs an array 'mask', the file has lables, masks; is it 'masks'?\n"
        "    at   data.npz\n"
        "    fix  call it mask or x1 or x_1\n"
        "[data-names] train needs an array 'target', the file has lables, masks; "
        "is it 'lables'?\n"
        "    at   data.npz\n"
        "    fix  call it target or targets or y or label or labels"
    )


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "data.npz"
    assert message(missing, IMAGE) == (
        "[data-file] there is no file data.npz\n    fix  check the path"
    )
    missing.write_text("hello", encoding="utf-8")
    assert message(missing, IMAGE).startswith("[data-file] cannot read data.npz as .npz: ")
    with missing.open("wb") as file:
        np.save(file, np.ones(3))
    assert message(missing, IMAGE) == (
        "[data-file] data.npz holds a single array without a name\n"
        "    fix  write it with numpy.savez(path, x=..., target=...)"
    )


def test_python_objects_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, x=np.array([{"a": 1}], dtype=object))
    assert "numbers only" in message(path, IMAGE)
