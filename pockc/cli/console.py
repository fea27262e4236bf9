"""Where text goes: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pockc.errors import InternalError, PockcError

# Without a terminal a table is for a file or a program: it must not be cut at 80 columns.
PLAIN_WIDTH = 140


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)
    return console


def is_terminal() -> bool:
    """Whether progress can be drawn."""
    return _console(stderr=True).is_terminal


def say(text: str = "") -> None:
    """Write a line to standard output as it is."""
    _console(stderr=False).print(text, markup=False, soft_wrap=True)


def show(table: Table) -> None:
    """Write a table to standard output."""
    _console(stderr=False).print(table)


def warn(text: str) -> None:
    """Write a line to standard error."""
    _console(stderr=True).print(text, markup=False, soft_wrap=True)


def show_error(error: PockcError) -> None:
    """Write the four parts of every problem to standard error."""
    warn(str(error))
    if isinstance(error, InternalError):
        for note in getattr(error, "__notes__", ()):
            warn(note)
        warn("    this is a defect of pockc: please report it with the text above")


def table(title: str, *columns: str, right: tuple[int, ...] = ()) -> Table:
    """Return an empty table; the numbered columns are for figures."""
    made = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for number, name in enumerate(columns):
        made.add_column(
            name,
            justify="right" if number in right else "left",
            no_wrap=number in right,
            overflow="fold",
        )
    return made


class Bar:
    """A progress bar; without a terminal it is silent."""

    def __init__(self, progress: Progress | None) -> None:
        """Draw on `progress`, or not at all."""
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show how far a stage is."""
        if self._progress is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
        task = self._tasks[stage]
        self._progress.update(task, completed=done, total=total, note=note)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Give a progress bar on standard error, silent if that is no terminal."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield Bar(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
