"""Choices of a kernel generator that change how fast a kernel is and never what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

Choice = int | str
"""What a field of a schedule may hold; truth values are integers in Python."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is chosen for one kernel; None leaves a choice to the generator's own rule.

    Attributes:
        form: Which of several forms of the loops, by name.
        vectors: Vectors side by side in a register tile.
        rows: Most rows of a register tile.
        columns: Neighbouring columns that a depthwise kernel computes at once.
        block: Steps of a long reduction, or rows of images, before the next tile begins.
        pack: Whether the right operand is copied into panels.
        share: What a thread has of a packed product: whole `panels`, or `tiles` of all.
        order: What the outer loop of a product runs over: `rows` or `panels`.
        prefetch: Whether the cache is asked for what comes next.
        parallel_work: Least work, in elements touched, that is divided between threads.
    """

    form: str | None = None
    vectors: int | None = None
    rows: int | None = None
    columns: int | None = None
    block: int | None = None
    pack: bool | None = None
    share: str | None = None
    order: str | None = None
    prefetch: bool | None = None
    parallel_work: int | None = None

    @classmethod
    def of(cls, choices: Mapping[str, Any]) -> Schedule:
        """Return a schedule of named choices.

        Raises:
            ValueError: A name is not a choice, or a value is of another type.
        """
        kinds = {f.name: str(f.type).partition(" ")[0] for f in fields(cls)}
        for name, value in choices.items():
            if name not in kinds:
                raise ValueError(f"there is no choice '{name}'")
            if type(value).__name__ != kinds[name]:
                raise ValueError(f"'{name}' is {value!r} and must be of type {kinds[name]}")
        return cls(**choices)

    @property
    def choices(self) -> dict[str, Choice]:
        """What is not left to the generator, by name."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in named if value is not None}

    def __str__(self) -> str:
        """Return the choices as text, as `vectors=3 pack=False`."""
        return " ".join(f"{k}={v}" for k, v in self.choices.items()) or "default"


DEFAULT = Schedule()
"""Everything as the generator's own rules have it."""
