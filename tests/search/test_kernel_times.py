"""Times of kernels on disk: written by several, of several machines, and by devices."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pockc.errors import UserError
from pockc.profile.work import Work
from pockc.search.kernel_model import Timed
from pockc.search.machines import Peaks
from pockc.search.times_file import Measured, add_times, read_given, read_times

KEY = "a machine; 2 threads"
WORK = Work("matmul", 1000, 10, 200)


def measured(**ms: float) -> Measured:
    return Measured({k: Timed(v, WORK) for k, v in ms.items()}, Peaks(10.0, 1.0))


def test_times_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    assert read_times(path, KEY) == Measured()
    add_times(path, KEY, measured(k_a=1.5, k_b=0.25))
    assert read_times(path, KEY) == measured(k_a=1.5, k_b=0.25)
    assert read_given(path, KEY, "host", 2) == measured(k_a=1.5, k_b=0.25)
    assert read_times(path, "another machine; 2 threads") == Measured()


def test_the_shorter_time_and_the_higher_peak_stay(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    add_times(path, KEY, measured(k_a=1.5, k_b=0.25))
    later = Measured(measured(k_a=1.0, k_b=0.5, k_c=2.0).kernels, Peaks(8.0, 1.25))
    add_times(path, KEY, later)
    found = read_times(path, KEY)
    assert {k: t.ms for k, t in found.kernels.items()} == {"k_a": 1.0, "k_b": 0.25, "k_c": 2.0}
    assert found.peaks == Peaks(10.0, 1.25)


def _write(path: Path, writer: int, count: int) -> None:
    for i in range(count):
        add_times(path, KEY, measured(**{f"k_{writer}_{i}": 1.0 + i, "k_shared": 1.0 + writer}))


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path, writers, count = tmp_path / "times.json", 4, 10
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_write, args=(path, w, count)) for w in range(writers)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [p.exitcode for p in running] == [0] * writers
    found = read_times(path, KEY).kernels
    assert len(found) == writers * count + 1
    assert found["k_shared"].ms == 1.0


def test_a_writer_that_dies_leaves_the_file_whole_and_the_lock_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "times.json"
    add_times(path, KEY, measured(k_a=1.0))

    def dies(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pockc.search.times_file.json.dumps", dies)
        with pytest.raises(KeyboardInterrupt):
            add_times(path, KEY, measured(k_b=1.0))
    add_times(path, KEY, measured(k_c=1.0))
    assert set(read_times(path, KEY).kernels) == {"k_a", "k_c"}


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "not an object": lambda data: [data],
    "another format": lambda data: {**data, "format": "pock-recording"},
    "another version": lambda data: {**data, "version": 99},
    "no machines": lambda data: {**data, "machines": 3},
    "no kernels": lambda data: {**data, "machines": {KEY: {"peaks": None}}},
    "a time that is text": lambda data: _with_row(data, ["1", "matmul", 1, 1, 1]),
    "a negative time": lambda data: _with_row(data, [-1.0, "matmul", 1, 1, 1]),
    "no number": lambda data: _with_row(data, [float("nan"), "matmul", 1, 1, 1]),
    "a short row": lambda data: _with_row(data, [1.0, "matmul", 1]),
    "a negative count": lambda data: _with_row(data, [1.0, "matmul", 1, -1, 1]),
}


def _with_row(data: dict[str, Any], row: list[object]) -> dict[str, Any]:
    return {**data, "machines": {KEY: {"kernels": {"k_a": row}, "peaks": None}}}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "times.json"
    add_times(path, KEY, measured(k_a=1.0))
    path.write_text(json.dumps(DAMAGE[damage](json.loads(path.read_text()))))
    before = path.read_bytes()
    for use in (
        lambda: read_times(path, KEY),
        lambda: read_given(path, KEY, "host", 2),
        lambda: add_times(path, KEY, measured(k_b=1.0)),
    ):
        with pytest.raises(UserError, match=r"(?s)\[kernel-times\].*times\.json.*fix  "):
            use()
    assert path.read_bytes() == before


def test_half_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    add_times(path, KEY, measured(k_a=1.0))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"\[kernel-times\].*cannot be read"):
        read_times(path, KEY)


def test_a_file_that_a_user_gives_must_be_there_and_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    with pytest.raises(UserError, match=r"\[kernel-times\] there is no file"):
        read_given(path, KEY, "host", 2)
    add_times(path, KEY, measured(k_a=1.0))
    with pytest.raises(UserError, match=r"has no times of a Pi; it has those of: a machine"):
        read_given(path, "a Pi", "rpi4", 4)
