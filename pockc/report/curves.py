"""Training curves: the loss of every step, evaluations, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pockc.report.style import BACKWARD, FAINT, FORWARD, GRID, UPDATE, figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING = 0.02
"""Least weight of a step in the moving mean that is drawn over the losses."""
SPAN = 12
"""In a short run the mean is over this part of it."""
MARKED_EPOCHS = 20
"""More epochs than this get no lines between them."""


@dataclass
class Curves:
    """What a run told, in the order of its steps.

    Attributes:
        steps: Number of each step.
        losses: Loss of each step.
        rates: Learning rate of each step; NaN where it was not told.
        evaluations: Step, and results by name, as loss and accuracy.
        epochs: The last step of each epoch.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)

    def step(self, number: int, loss: float, rate: float = float("nan")) -> None:
        """Note a step."""
        self.steps.append(number)
        self.losses.append(loss)
        self.rates.append(rate)

    def evaluated(self, number: int, figures: dict[str, float]) -> None:
        """Note an evaluation after a step; counts are no curve."""
        self.evaluations.append((number, {k: v for k, v in figures.items() if k != "samples"}))

    def of(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps and results of the evaluations that have a result of a name."""
        found = [(at, told[name]) for at, told in self.evaluations if name in told]
        return [at for at, _ in found], [value for _, value in found]


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the moving mean of losses, which begins as a plain mean."""
    weight = max(SMOOTHING, min(1.0, SPAN / max(len(losses), 1)))
    mean, line = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean += max(weight, 1 / number) * (loss - mean)
        line.append(mean)
    return line


def curves_figure(curves: Curves, title: str) -> Figure:
    """Draw a run: losses, other results of evaluations, and the rate if it changed."""
    names = sorted({n for _, told in curves.evaluations for n in told} - {"loss"})
    rates = {r for r in curves.rates if not math.isnan(r)}
    below = len(rates) > 1
    with styled():
        heights = (2.4,) + (1.5,) * bool(names) + (1.0,) * below
        made = figure(8, 0.6 + 1.25 * sum(heights))
        panels = made.subplots(
            len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
        )
        rows = [r[0] for r in panels]
        _draw_losses(rows[0], curves)
        rows[0].set_title(title)
        if names:
            _draw_results(rows[1], curves, names)
        if below:
            rows[-1].plot(curves.steps, curves.rates, color=FAINT, linewidth=1.4)
            rows[-1].set_ylabel("learning rate")
            rows[-1].ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
        rows[-1].set_xlabel("step")
        for axes in rows:
            axes.margins(x=0.01)
            for at in curves.epochs[:-1] if len(curves.epochs) <= MARKED_EPOCHS else ():
                axes.axvline(at, color=GRID, linewidth=0.8)
    return made


def _draw_losses(axes: Axes, curves: Curves) -> None:
    axes.plot(curves.steps, curves.losses, color=FORWARD, alpha=0.3, linewidth=0.8)
    axes.plot(
        curves.steps, smoothed(curves.losses), color=FORWARD, linewidth=1.8, label="training"
    )
    at, losses = curves.of("loss")
    if at:
        axes.plot(
            at, losses, "o-", color=BACKWARD, markersize=4, linewidth=1.4, label="evaluation"
        )
    axes.set_ylabel("loss")
    axes.legend(loc="upper right")


def _draw_results(axes: Axes, curves: Curves, names: Sequence[str]) -> None:
    for name, colour in zip(names, (UPDATE, BACKWARD, FORWARD), strict=False):
        at, values = curves.of(name)
        axes.plot(at, values, "o-", color=colour, markersize=4, linewidth=1.4, label=name)
        axes.annotate(
            f"{values[-1]:.3f}",
            (at[-1], values[-1]),
            xytext=(0, 6),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    axes.set_ylabel(names[0] if len(names) == 1 else "evaluation")
    axes.margins(y=0.22)
    if len(names) > 1:
        axes.legend(loc="lower right")
