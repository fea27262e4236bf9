"""The roofline of a step's kernels, and its time by module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pockc.ir.phases import PHASES
from pockc.profile import Kernel, Machine, Profile
from pockc.report.style import COLOURS, FAINT, INK, PAPER, figure, milliseconds, styled
from pockc.report.times import by_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 5
"""How many of the slowest kernels are named."""


def roofline_figure(name: str, profile: Profile) -> tuple[Figure, dict[str, str]]:
    """Draw what each kernel reaches over its operations per byte (Williams et al., CACM 2009).

    The area of a point is its time. Kernels without products or convolutions have no place:
    their operations are not counted. A point above the slope reads from caches, which are
    faster than the memory that was measured.

    Returns:
        The picture, and what to show over each point by its gid.
    """
    shown = [k for k in profile.kernels if k.flops and k.nbytes and k.ms]
    from matplotlib.ticker import NullFormatter

    longest = max((k.ms for k in shown), default=1.0)
    tips: dict[str, str] = {}
    with styled():
        made = figure(8, 4.8)
        axes = made.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        for number, k in enumerate(sorted(shown, key=lambda k: -k.ms)):
            gid = f"kernel{number}"
            axes.plot(
                [k.flops / k.nbytes],
                [k.gflops],
                "o",
                color=COLOURS.get(k.phase, FAINT),
                alpha=0.75,
                markersize=3 + 15 * (k.ms / longest) ** 0.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.5,
                gid=gid,
            )
            tips[gid] = _tip(k, profile.machine)
        _draw_roof(axes, shown, profile.machine)
        _name_slowest(axes, shown)
        left_out = [k for k in profile.kernels if not k.flops]
        spent = sum(k.ms for k in left_out) / max(sum(k.ms for k in profile.kernels), 1e-12)
        if left_out:
            part = f"{100 * spent:.0f} % of the time"
            text = f"not shown: {len(left_out)} calls without products, {part}"
            axes.annotate(
                text, (1, 0.015), xycoords="axes fraction", ha="right", fontsize=8, color=FAINT
            )
        axes.grid(visible=True, which="major", axis="both")
        axes.set_xlabel("operations per byte")
        axes.set_ylabel("GFLOP/s")
        axes.set_title(f"{name}: kernels of a training step under the roofline")
        _legend(made, profile)
    return made, tips


def _draw_roof(axes: Axes, shown: list[Kernel], machine: Machine) -> None:
    if not machine.peak_gflops or not machine.peak_gbs or not shown:
        return
    ridge = machine.peak_gflops / machine.peak_gbs
    low = min([k.flops / k.nbytes for k in shown] + [ridge]) / 2
    high = max([k.flops / k.nbytes for k in shown] + [ridge]) * 2.5
    roof = [low * machine.peak_gbs, machine.peak_gflops, machine.peak_gflops]
    axes.plot([low, ridge, high], roof, color=INK, linewidth=1.3, zorder=1)
    place: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": INK}
    axes.annotate(
        f"{machine.peak_gflops:.0f} GFLOP/s",
        (high, roof[-1]),
        xytext=(-2, 4),
        ha="right",
        **place,
    )
    axes.annotate(
        f"{machine.peak_gbs:.0f} GB/s",
        (low, roof[0]),
        xytext=(8, 0),
        ha="left",
        va="top",
        **place,
    )


def _name_slowest(axes: Axes, shown: list[Kernel]) -> None:
    """Name the slowest kernels, those that would lie over another name left out."""
    taken: list[tuple[float, float]] = []
    for k in sorted(shown, key=lambda k: -k.ms)[: 3 * NAMED]:
        at = (k.flops / k.nbytes, k.gflops)
        near = any(0.4 < at[0] / x < 2.5 and 0.75 < at[1] / y < 1.33 for x, y in taken)
        if near or len(taken) == NAMED:
            continue
        taken.append(at)
        axes.annotate(
            k.module or k.op,
            at,
            xytext=(7, -9),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
        )


def _tip(k: Kernel, machine: Machine) -> str:
    roof = k.roofline(machine)
    share = "" if roof is None else f", {100 * roof:.0f} % of the roofline"
    lines = [
        f"{k.op} ({k.phase})",
        f"{k.ms:.3g} ms, {k.gflops:.3g} GFLOP/s, {k.gbs:.3g} GB/s{share}",
        k.module,
        k.source,
        k.symbol,
    ]
    return "\n".join(filter(None, lines))


def _legend(made: Figure, profile: Profile) -> None:
    from matplotlib.lines import Line2D

    used = [p for p in PHASES if any(k.phase == p for k in profile.kernels)]
    dots = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[p], label=p, markersize=7)
        for p in used
    ]
    made.legend(handles=dots, loc="outside lower center", ncols=3)


def modules_figure(name: str, profile: Profile) -> Figure:
    """Draw the time of each module, or of each block of a large net, by part of the step."""
    rows = by_module(profile.kernels)
    names = list(reversed(rows))
    with styled():
        made = figure(8, 1.3 + 0.27 * len(rows))
        axes = made.subplots()
        left = [0.0] * len(names)
        for phase in PHASES:
            widths = [rows[n][phase] for n in names]
            axes.barh(names, widths, left=left, color=COLOURS[phase], label=phase, height=0.72)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        total = sum(left)
        for at, width in enumerate(left):
            axes.annotate(
                f"{100 * width / total if total else 0:.0f} %",
                (width, at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=FAINT,
            )
        axes.margins(x=0.08, y=0.02)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xlabel("ms")
        axes.set_title(f"{name}: a training step by module, {milliseconds(profile.median_ms)}")
        made.legend(loc="outside lower center", ncols=3)
    return made
