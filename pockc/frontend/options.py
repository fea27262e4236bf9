"""Reads a choice with options, as `"adamw"` or `{"name": "adamw", "lr": 0.001}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pockc.errors import Problem, UserError


@dataclass(frozen=True)
class Option:
    """A number, flag or list that a choice takes.

    Attributes:
        default: The value if none is given; its type is what is accepted.
        legal: Whether a value may be given.
        rule: What `legal` asks for, in words.
    """

    default: Any
    legal: Callable[[Any], bool] = field(default=lambda _: True)
    rule: str = ""


def number(default: float, low: float = 0.0, high: float = math.inf) -> Option:
    """Return an option that is a number from `low` to below `high`."""
    limit = f"from {low:g} to below {high:g}" if math.isfinite(high) else f"at least {low:g}"
    return Option(default, lambda v: low <= v < high, limit)


def read(
    what: str, choices: Mapping[str, Mapping[str, Option]], given: str | Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the chosen name and all its options, defaults filled in.

    Args:
        what: What is chosen, as "loss"; begins the slugs of the errors.
        choices: For every name its options.
        given: A name, or a mapping that has one under "name".

    Raises:
        UserError: [unknown-<what>] there is no such name; [<what>-option] an option is unknown,
            or its value is not legal. All wrong options are reported.
    """
    spelled = {"name": given} if isinstance(given, str) else dict(given)
    name = spelled.pop("name", None)
    if not isinstance(name, str) or name not in choices:
        said = "no name" if name is None else f"'{name}'"
        raise UserError(
            Problem(f"unknown-{what}", f"{what}: {said} is given", fix=_choose(name, choices))
        )
    options = choices[name]
    problems = []
    for key, value in spelled.items():
        if key not in options:
            problem = f"{what} '{name}' has no option '{key}'"
            problems.append(Problem(f"{what}-option", problem, fix=_choose(key, options)))
        elif wrong := _wrong(options[key], value):
            problem = f"{what} '{name}': {key} is {value!r}, expected {wrong}"
            problems.append(Problem(f"{what}-option", problem))
    if problems:
        raise UserError(*problems)
    return name, {k: spelled.get(k, o.default) for k, o in options.items()}


def _choose(given: object, choices: Mapping[str, Any]) -> str:
    if not choices:
        return "it takes none"
    near = get_close_matches(str(given), list(choices), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}choose from: {', '.join(choices)}"


def _wrong(option: Option, value: object) -> str:
    """Return what is expected instead of a value, "" if it is legal."""
    expected = _kind(option.default)
    if not _fits(option.default, value):
        return f"{expected} {option.rule}".strip()
    try:
        legal = value is None or option.legal(value)
    except (TypeError, ValueError):
        legal = False
    return "" if legal else f"{expected} {option.rule}".strip()


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int):
        return "a whole number"
    if isinstance(default, float):
        return "a number"
    if isinstance(default, tuple):
        return f"{len(default)} numbers"
    return "a number or a list of numbers"


def _fits(default: object, value: object) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, float):
        return _is_number(value)
    if isinstance(default, tuple):
        return _is_list(value) and len(value) == len(default)  # type: ignore[arg-type]
    return value is None or _is_number(value) or _is_list(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(v is None or _is_number(v) for v in value)
    )
