"""Training curves: event files that TensorBoard's own reader reads, and a picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pockc.cli.app import run
from pockc.report.curves import Curves, curves_figure, smoothed
from pockc.report.style import page_svg


@pytest.mark.needs_torch
@pytest.mark.needs_tvm
def test_train_writes_what_tensorboard_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, data = tmp_path / "net.pock", folder / "data.npz"
    shutil.copytree(folder / "sparse.pock", artifact)
    words = ["train", artifact, "--data", data, "--eval", data, "--epochs", 3]
    words += ["--schedule", "linear", "--tensorboard", tmp_path / "events"]
    assert run([*map(str, words), "--curves", str(tmp_path / "curves.png")]) == 0
    out = capsys.readouterr().out
    assert f"curves   {tmp_path / 'curves.png'}" in out
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss", "train/learning_rate", "train/step_ms", "eval/loss", "eval/accuracy",
    }  # fmt: skip
    losses = events.Scalars("train/loss")
    assert [e.step for e in losses] == list(range(1, 13))
    rates = [e.value for e in events.Scalars("train/learning_rate")]
    np.testing.assert_allclose(rates, 0.01 * (1 - np.arange(12) / 12), rtol=1e-6)
    evaluations = events.Scalars("eval/loss")
    assert [e.step for e in evaluations] == [0, 4, 8, 12]
    last = f"{evaluations[-1].value:.4f}"
    assert f"eval: loss {last}" in out
    assert len(np.unique(imread(tmp_path / "curves.png").reshape(-1, 4), axis=0)) > 20


def test_a_picture_that_cannot_be_written_stops_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", folder / "sparse.pock", "--data", folder / "data.npz"]
    assert run([*map(str, words), "--curves", "curves.gif"]) == 1
    captured = capsys.readouterr()
    assert "[picture-format]" in captured.err
    assert "epoch" not in captured.out


def test_a_run_without_evaluations_and_one_rate_is_one_panel() -> None:
    curves = Curves()
    for step in range(1, 30):
        curves.step(step, 1 / step, 0.1)
    text = page_svg(curves_figure(curves, "run"), "c")
    assert "loss" in text
    assert "learning rate" not in text
    assert "evaluation" not in text


def test_the_moving_mean_begins_as_a_mean_and_follows() -> None:
    assert smoothed([4.0, 2.0]) == [4.0, 2.0]
    line = smoothed([1.0] * 500 + [0.0] * 500)
    assert line[499] == pytest.approx(1.0)
    assert 0 < line[550] < 0.5
    assert smoothed([]) == []
