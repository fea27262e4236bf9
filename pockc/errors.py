"""Errors: what was found, where in the graph, from which of the user's lines, what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        slug: Stable identifier, for tests and for the documentation.
        what: What was found and what was expected, one sentence.
        at: The place: a line of the graph as a dump prints it, a file and line, a tensor.
        source: The user's own line that led here.
        fix: What the reader can do about it.
    """

    slug: str
    what: str
    at: str | None = None
    source: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        """Return the four parts in their fixed order."""
        parts = (("at  ", self.at), ("from", self.source), ("fix ", self.fix))
        lines = [f"[{self.slug}] {self.what}"]
        lines += [f"    {label} {text}" for label, text in parts if text]
        return "\n".join(lines)


class PockcError(Exception):
    """Base of the two exceptions that leave pockc on purpose; holds every problem found."""

    def __init__(self, *problems: Problem) -> None:
        """Keep the problems, in the order in which they were found."""
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


class UserError(PockcError):
    """The input cannot be used as it is; each problem says what to change."""


class InternalError(PockcError):
    """A defect of pockc itself: an invariant of the compiler does not hold."""
