"""A small SVG of a net: what a step computes in each module, and grey what pruning removed.

A column is a module with parameters, in the order of the forward pass. Its three cells are its
forward computation, the gradient that it hands on to the modules before it, and the update of
its own parameters, filled as far as they are trained. The file is light or dark as the page is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from pockc.ir import Gradient, Graph, Update
from pockc.ir.phases import ancestors
from pockc.report.graphs import Stage, module_of, parameters_of
from pockc.report.style import (
    BACKWARD,
    FAINT,
    FORWARD,
    GRID,
    INK,
    UPDATE,
    page_colours,
    variable,
)

CELL, GAP, LEFT, TOP = 13, 3, 78, 30
ROWS = (("forward", TOP), ("backward", TOP + 34), ("update", TOP + 68))
HEIGHT = 24
LETTER = 5.3
"""Width of a letter in the names of blocks."""
MOST_COLUMNS = 120
"""More modules than this are drawn by the block that they belong to."""


@dataclass(frozen=True)
class Column:
    """A module of the net.

    Attributes:
        name: Its qualified name.
        hands_on: Whether full training computes a gradient for the modules before it.
        kept: Whether this artifact still does.
        trained: The share of its parameters' elements that a step changes.
    """

    name: str
    hands_on: bool
    kept: bool
    trained: float


def columns(stage: Stage, sizes: dict[str, int]) -> list[Column]:
    """Return the modules of a captured graph, in the order of the forward pass.

    Args:
        stage: The captured training step, before pruning.
        sizes: Elements of each parameter.
    """
    graph = stage.graph
    owners: dict[str, list[str]] = {}
    for parameter in _in_order(graph):
        owners.setdefault(module_of(parameter), []).append(parameter)
    kept = frozenset(stage.trained)
    found = []
    for module, own in owners.items():
        total = sum(sizes[p] for p in own)
        trained = sum(stage.trained.get(p, 0.0) * sizes[p] for p in own)
        every = _hands_on(stage, module, frozenset(sizes) - set(own))
        still = every and _hands_on(stage, module, kept - set(own))
        found.append(Column(module, every, still, trained / total if total else 0.0))
    return found


def _in_order(graph: Graph) -> list[str]:
    """Return the parameters in the order in which the graph first reads them."""
    inputs = {value: name for name, value in parameters_of(graph).items()}
    order = dict.fromkeys(inputs[i] for n in graph.nodes for i in n.inputs if i in inputs)
    return list(order)


def _hands_on(stage: Stage, module: str, others: frozenset[str]) -> bool:
    """Return whether gradients of other modules' parameters pass through a module."""
    graph = stage.graph
    wanted = [
        o.value
        for o in graph.outputs
        if isinstance(o.role, Gradient | Update) and o.role.param in others
    ]
    needed = ancestors(graph, wanted)
    return any(
        n.name in needed and stage.phases[n.name] == "backward"
        for n in graph.nodes
        if n.source is not None and n.source.module == module
    )


def net_svg(title: str, shown: Sequence[Column], *, in_page: bool = False) -> str:
    """Return the picture; modules of one block stand together.

    Args:
        title: Stands above it.
        shown: The modules.
        in_page: Take the colours of a page around it, as `page_colours` gives them.
    """
    shown = shown if len(shown) <= MOST_COLUMNS else _by_block(shown)
    places, width = _places(shown)
    height = ROWS[-1][1] + HEIGHT + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="net" viewBox="0 0 {width} {height}" '
        f'style="max-width:{1.5 * width:g}px" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}{'' if in_page else _DARK}</style>",
        f'<text class="head" x="8" y="18">{escape(title)}</text>',
    ]
    for name, y in ROWS:
        lines.append(f'<text class="name" x="{LEFT - 8}" y="{y + 16}">{name}</text>')
    lines += [f"<g>{''.join(_cells(c, x))}</g>" for c, x in zip(shown, places, strict=True)]
    lines += list(_block_names(shown, places))
    lines += list(_key(height - 12))
    return "\n".join([*lines, "</svg>"]) + "\n"


_COLOURS = {"f": FORWARD, "b": BACKWARD, "u": UPDATE, "p": GRID}
_STYLE = (
    "".join(f".net .{kind}{{fill:{variable(c)}}}" for kind, c in _COLOURS.items())
    + f".net .e{{fill:none;stroke:{variable(UPDATE)}}}"
    + f".net text{{fill:{variable(FAINT)}}}.net .head{{fill:{variable(INK)};font-weight:600;"
    + "font-size:12.5px}.net .name{text-anchor:end}.net .block{text-anchor:middle;"
    + "font-size:9.5px}"
)
_DARK = f"@media(prefers-color-scheme:dark){{.net{{{page_colours(dark=True)}}}}}"


def block_of(name: str) -> str:
    """Return the block that a module belongs to: its name up to the first number, or a part."""
    parts = name.split(".")
    at = next((i for i, p in enumerate(parts) if p.isdecimal()), None)
    return ".".join(parts[: at + 1]) if at is not None else parts[0]


def _by_block(shown: Sequence[Column]) -> list[Column]:
    """Return one column for each block; it is kept and trained as far as its modules are."""
    merged = []
    for block, group in itertools.groupby(shown, key=lambda c: block_of(c.name)):
        of = list(group)
        share = sum(c.trained for c in of) / len(of)
        merged.append(
            Column(block, any(c.hands_on for c in of), any(c.kept for c in of), share)
        )
    return merged


def _places(shown: Sequence[Column]) -> tuple[list[int], int]:
    """Return the left edge of each column, and the width of the picture."""
    places, x = [], LEFT
    for before, column in itertools.pairwise([None, *shown]):
        if before is not None and column is not None:
            x += CELL + (GAP if block_of(before.name) == block_of(column.name) else 3 * GAP)
        places.append(x)
    return places, max(x + CELL + 30, LEFT + _KEY_WIDTH)


def _cells(column: Column, x: int) -> Iterator[str]:
    percent = f"{100 * column.trained:.3g} % trained" if column.trained else "frozen"
    passed = "" if not column.hands_on else ", gradient passes" if column.kept else ", pruned"
    yield f"<title>{escape(column.name or 'the model itself')}: {percent}{passed}</title>"
    (_, forward), (_, backward), (_, update) = ROWS
    yield f'<rect class="f" x="{x}" y="{forward}" width="{CELL}" height="{HEIGHT}" rx="2"/>'
    if column.hands_on:
        kind = "b" if column.kept else "p"
        yield (
            f'<rect class="{kind}" x="{x}" y="{backward}" width="{CELL}" height="{HEIGHT}" '
            'rx="2"/>'
        )
    if not column.trained:
        yield f'<rect class="p" x="{x}" y="{update}" width="{CELL}" height="{HEIGHT}" rx="2"/>'
        return
    filled = max(2.0, HEIGHT * column.trained)
    yield (
        f'<rect class="u" x="{x}" y="{update + HEIGHT - filled:g}" width="{CELL}" '
        f'height="{filled:g}" rx="2"/>'
        f'<rect class="e" x="{x + 0.5}" y="{update + 0.5}" width="{CELL - 1}" '
        f'height="{HEIGHT - 1}" rx="2"/>'
    )


def _block_names(shown: Sequence[Column], places: Sequence[int]) -> Iterator[str]:
    """Yield the names of blocks under their columns, where there is room for them."""
    y, free = ROWS[-1][1] + HEIGHT + 14, 0.0
    blocks: dict[str, list[int]] = {}
    for column, x in zip(shown, places, strict=True):
        blocks.setdefault(block_of(column.name), []).append(x)
    middles = [((xs[0] + xs[-1] + CELL) / 2, block) for block, xs in blocks.items()]
    room = min((b - a for (a, _), (b, _) in itertools.pairwise(middles)), default=LEFT)
    whole = max(map(len, blocks), default=0) * LETTER + 4 <= room
    for middle, block in middles:
        text = block if whole else block.rpartition(".")[2]
        wide = LETTER * len(text)
        if middle - wide / 2 < free:
            continue
        free = middle + wide / 2 + 4
        yield f'<text class="block" x="{middle:g}" y="{y}">{escape(text)}</text>'


_MARKS = (
    ("f", "forward"),
    ("b", "gradient handed on"),
    ("u", "trained"),
    ("p", "pruned, never computed"),
)
_KEY_WIDTH = sum(32 + 6 * len(text) for _, text in _MARKS)


def _key(y: int) -> Iterator[str]:
    x = LEFT
    for kind, text in _MARKS:
        yield f'<rect class="{kind}" x="{x}" y="{y - 9}" width="10" height="10" rx="2"/>'
        yield f'<text x="{x + 15}" y="{y}">{text}</text>'
        x += 32 + 6 * len(text)
