"""Memory over a training step, stacked by what it is for, and the map of the arena."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pockc.plan import CATEGORIES, EntryOccupancy, Occupancy, Occupied
from pockc.report.style import (
    COLOURS,
    FAINT,
    GRID,
    INK,
    LABELS,
    PAPER,
    figure,
    styled,
    unit_of,
)
from pockc.report.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LISTED = 9
"""How many of the values that are alive at the peak are listed."""

ON_BLOCK = "#15181c"
"""Of text on a block, which is as bright on a dark page."""

_LASTING = ("parameters", "optimizer")


@dataclass(frozen=True)
class Layers:
    """Private bytes at each time of a step, by what they are for.

    Attributes:
        rows: By category, from the bottom of the stack up; arrays over time.
        state_bytes: What lasts: the sum of the two rows that do not change.
        planned_bytes: State and the whole arena.
        bound_bytes: State and the most bytes alive in the arena at one time.
        peak: The time at which that is.
    """

    rows: Mapping[str, np.ndarray]
    state_bytes: int
    planned_bytes: int
    bound_bytes: int
    peak: int

    @property
    def total(self) -> np.ndarray:
        """Their sum at each time."""
        total: np.ndarray = np.add.reduce(list(self.rows.values()))
        return total


def layers(memory: Occupancy, step: EntryOccupancy) -> Layers:
    """Return the stack of a plan; its maximum is the plan's lower bound above the state.

    What a step only reads is mapped from a file and not in it.
    """
    state, times = memory.state, step.times
    rows = {
        "parameters": np.full(times, state.nbytes - state.optimizer, np.int64),
        "optimizer": np.full(times, state.optimizer, np.int64),
        **{c: np.zeros(times, np.int64) for c in CATEGORIES},
    }
    for block in step.blocks:
        rows[block.category][block.start : block.end + 1] += block.nbytes
    order = (*_LASTING, "saved_activations", "inputs", "temporaries", "workspace")
    return Layers(
        {name: rows[name] for name in order},
        state.nbytes,
        state.nbytes + step.arena_bytes,
        state.nbytes + step.lower_bound_bytes,
        step.peak(),
    )


def memory_figure(
    subjects: Sequence[Subject], *, listed: int = LISTED, top_bytes: int = 0
) -> Figure:
    """Draw memory over the step of one artifact, or of several to one scale.

    Args:
        subjects: From top to bottom.
        listed: How many values alive at the peak are listed beside each; 0 for no list.
        top_bytes: What the scale reaches at least.

    Raises:
        UserError: [no-plan] for an artifact without one.
    """
    stacks = [layers(*s.planned()) for s in subjects]
    top = max(top_bytes, *(s.planned_bytes for s in stacks))
    unit = unit_of(top)
    with styled():
        made = figure(9.6 if listed else 7.2, 0.5 + 3.1 * len(subjects))
        columns = 2 if listed else 1
        grid = made.subplots(
            *(len(subjects), columns),
            squeeze=False,
            width_ratios=(1.75, 1)[:columns],
        )
        for row, subject, stack in zip(grid, subjects, stacks, strict=True):
            step = subject.planned()[1]
            _draw_stack(row[0], stack, step, unit)
            row[0].set_ylim(0, 1.16 * top / unit[0])
            row[0].set_title(f"{subject.name}: memory over a training step")
            if listed:
                _list_alive(row[1], step, listed)
        grid[-1][0].set_xlabel("kernel call")
        _legend(made, stacks)
    return made


def _draw_stack(
    axes: Axes, stack: Layers, step: EntryOccupancy, unit: tuple[float, str]
) -> None:
    edges = np.arange(step.times + 1)
    rows = [np.append(r, r[-1:]) / unit[0] for r in stack.rows.values()]
    colours = [COLOURS[name] for name in stack.rows]
    axes.stackplot(edges, *rows, colors=colours, step="post", linewidth=0)
    axes.set_xlim(0, step.times)
    axes.set_ylabel(f"private memory ({unit[1]})")
    bound, planned = stack.bound_bytes / unit[0], stack.planned_bytes / unit[0]
    axes.axhline(planned, color=INK, linewidth=1.1)
    axes.axhline(bound, color=INK, linewidth=1.1, linestyle=(0, (2, 2)))
    text = f"planned {_short(planned)} {unit[1]}, lower bound {_short(bound)} {unit[1]}"
    _note(axes, text, step.times, planned)
    at = stack.peak + 0.5
    axes.plot([at], [bound], "v", color=INK, markersize=6, markeredgecolor=PAPER)
    _mark_turn(axes, step)


def _note(axes: Axes, text: str, right: int, y: float) -> None:
    axes.annotate(
        text,
        (right, y),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=INK,
    )


def _mark_turn(axes: Axes, step: EntryOccupancy) -> None:
    """Draw a line where the backward pass begins, and name the parts beside it."""
    turn = _turn(step)
    if turn is None:
        return
    axes.axvline(turn, color=INK, linewidth=0.8, alpha=0.55)
    place: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "fontsize": 8,
        "color": FAINT,
        "va": "top",
    }
    if turn > 0.12 * step.times:
        axes.annotate("forward", (turn, 0.985), xytext=(-4, 0), ha="right", **place)
    if turn < 0.8 * step.times:
        axes.annotate("backward, update", (turn, 0.985), xytext=(4, 0), ha="left", **place)


def _turn(step: EntryOccupancy) -> int | None:
    """Return the time that parts forward from backward best; None without a backward pass.

    A few calls run early or late, as those that turn a weight round, or sum the loss up.
    """
    sides = [(call.phase == "forward") - (call.phase == "backward") for call in step.calls]
    if -1 not in sides:
        return None
    before = list(itertools.accumulate(sides))
    return before.index(max(before)) + 2


def _list_alive(axes: Axes, step: EntryOccupancy, listed: int) -> None:
    """Write what lies in the arena at the peak, the largest first."""
    axes.set_axis_off()
    peak = step.peak()
    alive = step.alive(peak)
    call = step.calls[peak - 1] if 1 <= peak <= len(step.calls) else None
    where = f"call {peak}" if call is not None else "the batch is filled"
    axes.set_title(f"Alive in the arena at the peak ({where})", fontsize=9, fontweight="normal")
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "fontsize": 8.2}
    rest = alive[listed:]
    lines = [(_label(b), b.nbytes, COLOURS[b.category]) for b in alive[:listed]]
    if rest:
        lines.append((f"{len(rest)} smaller ones", sum(b.nbytes for b in rest), GRID))
    for number, (text, nbytes, colour) in enumerate(lines):
        y = 0.955 - number * min(0.098, 0.97 / len(lines))
        axes.plot([0.012], [y], "s", color=colour, markersize=7, transform=axes.transAxes)
        size, unit = unit_of(nbytes)
        axes.text(0.27, y, f"{_short(nbytes / size)} {unit}", ha="right", color=INK, **place)
        axes.text(0.31, y, text, ha="left", color=INK, clip_on=True, **place)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _label(block: Occupied) -> str:
    """Return what a block is, short enough for a column."""
    where = block.module or block.value
    kind = "scratch of " if block.category == "workspace" else ""
    text = f"{kind}{where}"
    return text if len(text) <= 32 else f"…{text[-31:]}"


def _legend(made: Figure, stacks: Sequence[Layers]) -> None:
    from matplotlib.patches import Patch

    used = [n for n in stacks[0].rows if any(s.rows[n].any() for s in stacks)]
    shown = [Patch(color=COLOURS[n], label=LABELS[n]) for n in reversed(used)]
    made.legend(handles=shown, loc="outside lower center", ncols=6)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def arena_figure(subject: Subject) -> tuple[Figure, dict[str, str]]:
    """Draw where each value lies in the arena and when.

    Returns:
        The picture, and what to show over each value by its gid.

    Raises:
        UserError: [no-plan] for an artifact without one.
    """
    from matplotlib.patches import Patch, Rectangle

    step = subject.planned()[1]
    unit = unit_of(step.arena_bytes)
    top = step.arena_bytes / unit[0]
    tips: dict[str, str] = {}
    with styled():
        made = figure(9.6, 4.6)
        axes = made.subplots()
        for number, b in enumerate(step.blocks):
            box = Rectangle(
                (b.start, b.offset_bytes / unit[0]),
                b.end + 1 - b.start,
                b.nbytes / unit[0],
                facecolor=COLOURS[b.category],
                edgecolor=PAPER,
                linewidth=0.4,
            )
            gid = f"block{number}"
            box.set_gid(gid)
            tips[gid] = _tip(b)
            axes.add_patch(box)
            _name_block(axes, b, step, unit)
        axes.set_xlim(0, step.times)
        axes.set_ylim(0, 1.08 * top)
        axes.axhline(top, color=INK, linewidth=1.1)
        _note(axes, f"arena {_short(top)} {unit[1]}", step.times, top)
        axes.set_xlabel("kernel call")
        axes.set_ylabel(f"offset in the arena ({unit[1]})")
        axes.set_title(f"{subject.name}: what lies where in the arena")
        _mark_turn(axes, step)
        used = [c for c in CATEGORIES if any(b.category == c for b in step.blocks)]
        shown = [Patch(color=COLOURS[c], label=LABELS[c]) for c in used]
        made.legend(handles=shown, loc="outside lower center", ncols=4)
    return made, tips


def _tip(block: Occupied) -> str:
    size, unit = unit_of(block.nbytes)
    lines = [
        f"%{block.value} {block.shape}".rstrip(),
        f"{LABELS[block.category]}, {_short(block.nbytes / size)} {unit}",
        f"at offset {block.offset_bytes}",
        f"calls {max(block.start, 1)} to {block.end}",
        block.module,
        block.source,
    ]
    return "\n".join(filter(None, lines))


def _name_block(
    axes: Axes, block: Occupied, step: EntryOccupancy, unit: tuple[float, str]
) -> None:
    """Write a name into a block that is large enough for it."""
    wide = (block.end + 1 - block.start) / step.times
    high = block.nbytes / max(step.arena_bytes, 1)
    text = (block.module or block.value) if block.category != "workspace" else "scratch"
    if high < 0.045 or wide < 0.0105 * len(text) + 0.01:
        return
    axes.text(
        (block.start + block.end + 1) / 2,
        (block.offset_bytes + block.nbytes / 2) / unit[0],
        text,
        ha="center",
        va="center",
        fontsize=7.5,
        color=ON_BLOCK,
        clip_on=True,
    )
