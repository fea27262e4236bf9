"""The report of an artifact, or of two beside each other: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from pockc.errors import Problem, UserError
from pockc.report.style import page_colours

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Tile:
    """One figure of the summary, with a note below it."""

    what: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        number: What it is sorted by, if that is a number.
        width: Percent of the cell that a bar fills.
        code: Whether the text is code.
        whole: Whether it stays in one line.
        small: A second line.
        dot: A phase, whose colour stands before the text.
    """

    text: str
    number: float | None = None
    width: float | None = None
    code: bool = False
    whole: bool = False
    small: str = ""
    dot: str = ""


@dataclass(frozen=True)
class Heading:
    """The head of a column."""

    title: str
    number: bool = False
    sorted: bool = False


@dataclass(frozen=True)
class Rows:
    """A table that is sorted by clicking its heads."""

    columns: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Part:
    """What a section shows of one artifact."""

    name: str
    tiles: Sequence[Tile] = ()
    svg: str = ""
    table: Rows | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page; its parts stand beside each other."""

    id: str
    title: str
    parts: Sequence[Part]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    subtitle: str
    producer: str
    sections: Sequence[Section] = field(default_factory=tuple)


def page_html(page: Page) -> str:
    """Return the text of the page; it names no other file and no address.

    Raises:
        UserError: [no-jinja] The package is missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        what = f"a report needs a package that is missing: {error.name}"
        raise UserError(
            Problem("no-jinja", what, fix="pip install 'pockc[compile]', or jinja2")
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = resources.files("pockc.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text).render(
        title=page.title,
        subtitle=page.subtitle,
        producer=page.producer,
        sections=[_marked(s, Markup) for s in page.sections if s.parts],
        light=Markup(page_colours(dark=False)),
        dark=Markup(page_colours(dark=True)),
    )


def _marked(section: Section, markup: type[Markup]) -> dict[str, object]:
    """Return a section whose pictures are markup and not text."""
    parts = [
        {"name": p.name, "tiles": p.tiles, "svg": markup(p.svg), "table": p.table}
        for p in section.parts
    ]
    return {"id": section.id, "title": section.title, "note": section.note, "parts": parts}
