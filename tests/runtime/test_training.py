"""The training loop: order of the rows, learning rates, checkpoints, divergence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pockc.errors import UserError
from pockc.runtime import Artifact, EpochReport, StepReport, TrainOptions, load
from pockc.runtime.training import learning_rate
from tests.runtime.toy import N, toy_data, write_toy

DATA = toy_data(22)


def test_training_learns(toy: Artifact) -> None:
    data = toy_data(64)
    before = toy.evaluate(data)
    history = toy.train(data, epochs=20, lr=0.5, evaluate=data)
    assert history.evaluation is not None
    assert history.evaluation["accuracy"] > 0.85 > before["accuracy"]
    assert len(history.losses) == 20 * 16
    assert [e.epoch for e in history.epochs] == list(range(1, 21))


def test_reports_tell_every_step(toy: Artifact) -> None:
    steps: list[StepReport] = []
    epochs: list[EpochReport] = []
    options = TrainOptions(
        epochs=2, lr=0.5, schedule="linear", on_step=steps.append, on_epoch=epochs.append
    )
    history = toy.train(DATA, options)
    assert [s.step for s in steps] == list(range(1, 11))
    assert [s.epoch for s in steps] == [1] * 5 + [2] * 5
    assert {s.total_steps for s in steps} == {10}
    assert [s.lr for s in steps] == pytest.approx(np.linspace(0.5, 0.05, 10))
    assert [s.loss for s in steps] == history.losses
    assert epochs == history.epochs
    assert epochs[0].loss == pytest.approx(np.mean(history.losses[:5]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TrainOptions(), [1, 1, 1, 1, 1, 1, 1, 1]),
        (TrainOptions(schedule="linear"), [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (TrainOptions(warmup_steps=4), [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]),
        (
            TrainOptions(schedule="linear", warmup_steps=4, final_lr=0.5),
            [1 / 4, 2 / 4, 3 / 4, 1, 1, 7 / 8, 6 / 8, 5 / 8],
        ),
        (
            TrainOptions(schedule="cosine"),
            [0.5 + 0.5 * np.cos(np.pi * i / 8) for i in range(8)],
        ),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    options: TrainOptions, expected: list[float]
) -> None:
    found = [learning_rate(i, 8, 1.0, options) for i in range(8)]
    assert found == pytest.approx(expected)


def test_the_order_depends_on_seed_and_epoch_alone(toy_path: Path) -> None:
    def losses(**settings: Any) -> list[float]:
        return load(toy_path).train(DATA, epochs=2, lr=0.3, **settings).losses

    assert losses(seed=1) == losses(seed=1)
    assert losses(seed=1) != losses(seed=2)
    assert losses(seed=1) != losses(shuffle=False)


def test_without_shuffling_rows_come_in_order(toy: Artifact, toy_path: Path) -> None:
    x, target = DATA
    history = toy.train(DATA, shuffle=False, lr=0.3)
    other = load(toy_path)
    batches = [(x[i : i + N], target[i : i + N]) for i in range(0, 20, N)]
    assert other.train(batches, lr=0.3).losses == history.losses


def test_a_run_that_is_taken_up_again_ends_alike(toy_path: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 3, "lr": 0.3, "schedule": "cosine", "seed": 4}
    whole = load(toy_path)
    losses = whole.train(DATA, **settings).losses
    file = tmp_path / "c.safetensors"

    class Killed(Exception):  # noqa: N818
        pass

    def kill(report: StepReport) -> None:
        if report.step == 8:
            raise Killed

    first = load(toy_path)
    with pytest.raises(Killed):
        first.train(DATA, checkpoint=file, checkpoint_steps=1, on_step=kill, **settings)
    second = load(toy_path)
    second.load_state(file)
    rest = second.train(DATA, resume=True, **settings)
    assert rest.losses == losses[8:]
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], value)


def test_a_checkpoint_is_written_after_each_epoch(toy: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    toy.train(DATA, epochs=2, checkpoint=file)
    assert (tmp_path / "c.safetensors.previous").exists()
    after = toy.state_dict()
    toy.load_state(file)
    assert toy.step == 10
    np.testing.assert_array_equal(toy.state_dict()["fc.weight"], after["fc.weight"])


def test_a_nan_stops_the_run_at_the_last_good_checkpoint(
    toy: Artifact, toy_path: Path, tmp_path: Path
) -> None:
    x, target = DATA
    bad = x.copy()
    bad[9] = np.nan
    file = tmp_path / "c.safetensors"
    with pytest.raises(UserError) as caught:
        toy.train(
            (bad, target), shuffle=False, lr=0.25, checkpoint=file, checkpoint_steps=1, epochs=2
        )
    assert str(caught.value) == (
        "[nonfinite-loss] the loss of step 3 is nan, with learning rate 0.25\n"
        "    fix  lower the learning rate or clip gradients, and check the data for NaN; the "
        f"artifact is back at step 2, the last good one, from {file}"
    )
    good = load(toy_path)
    good.train((x[:8], target[:8]), shuffle=False, lr=0.25)
    assert toy.step == 2
    for name, value in good.state_dict().items():
        np.testing.assert_array_equal(toy.state_dict()[name], value)
    toy.load_state(file)


def test_a_nan_without_a_checkpoint_says_so(toy: Artifact) -> None:
    x, target = DATA
    with pytest.raises(UserError) as caught:
        toy.train((np.full_like(x, np.inf), target), lr=0.25)
    assert str(caught.value).endswith(
        "; then open the artifact again: no checkpoint was kept (checkpoint=...)"
    )


def test_a_nan_among_micro_batches_leaves_the_state(
    tmp_path: Path, libraries: dict[str, Path]
) -> None:
    artifact = load(write_toy(tmp_path / "m.pock", libraries["micro"], 2))
    x, target = toy_data(16)
    x[14] = np.nan
    with pytest.raises(UserError) as caught:
        artifact.train((x, target), shuffle=False, lr=0.25)
    assert str(caught.value) == (
        "[nonfinite-loss] the loss of step 2 is nan, with learning rate 0.25\n"
        "    fix  lower the learning rate or clip gradients, and check the data for NaN; the "
        "step was not taken, the artifact is at step 1"
    )
    assert np.isfinite(artifact.train_step(x[:8], target[:8]))
    artifact.save_checkpoint(tmp_path / "c.safetensors")


def test_an_interrupted_run_is_kept(toy: Artifact, tmp_path: Path) -> None:
    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    file = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        toy.train(DATA, checkpoint=file, on_step=interrupt)
    toy.load_state(file)
    assert toy.step == 3


def test_an_iterable_may_be_made_anew_for_each_epoch(toy: Artifact) -> None:
    x, target = DATA

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield x[:N], target[:N]
        yield x[N : 2 * N], target[N : 2 * N]

    assert len(toy.train(batches, epochs=3).losses) == 6
    assert len(toy.train(batches()).losses) == 2


def test_named_arrays_train_as_well(toy: Artifact, toy_path: Path) -> None:
    x, target = DATA
    assert toy.train({"target": target, "x": x}).losses == load(toy_path).train(DATA).losses


def test_memory_mapped_arrays_train_as_well(
    toy: Artifact, toy_path: Path, tmp_path: Path
) -> None:
    x, target = DATA
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert toy.train((mapped, target)).losses == load(toy_path).train(DATA).losses


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (
            DATA,
            {"schedule": "cosinus", "epochs": 0},
            "[train-option] there is no schedule 'cosinus'\n"
            "    fix  choose from: constant, linear, cosine\n"
            "[train-option] epochs is 0\n    fix  give at least 1",
        ),
        (
            DATA,
            {"lr": float("nan")},
            "[train-option] lr is nan\n    fix  give a number that is not negative",
        ),
        (
            toy_data(3),
            {},
            "[too-few-rows] the data has 3 rows, a step takes 4\n"
            "    fix  give more data, or compile for a smaller batch",
        ),
        (
            iter([DATA]),
            {"epochs": 2},
            "[data-once] an iterator gives its batches once, 2 epochs need them again\n"
            "    fix  give a list, or a function that returns a new iterator",
        ),
        (
            iter([DATA]),
            {"schedule": "linear"},
            "[train-option] schedule 'linear' needs to know how many batches there are\n"
            "    fix  give arrays or a list of batches, or use schedule 'constant'",
        ),
    ],
)
def test_bad_settings_are_told(
    toy: Artifact, data: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        toy.train(data, **settings)
    assert str(caught.value) == message
    assert toy.step == 0
