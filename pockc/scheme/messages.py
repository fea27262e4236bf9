"""Turns what pydantic found into problems that name the file, the line and the choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pockc.errors import Problem

Path = tuple[str | int, ...]

FIX_MARK = " | "
"""Separates in a validator's message what is wrong from what to do."""


@dataclass(frozen=True)
class Origin:
    """Where a configuration comes from.

    Attributes:
        name: A file, or the name of an argument.
        lines: The line, from 1, of each key and each item.
    """

    name: str
    lines: Mapping[Path, int] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Return a place as text, as `config.yaml:7: update[1].channels`."""
        line = next((self.lines[p] for p in _prefixes(path) if p in self.lines), None)
        where = self.name if line is None else f"{self.name}:{line}"
        return f"{where}: {_spelled(path)}" if path else where


def _prefixes(path: Path) -> Iterable[Path]:
    return (path[:n] for n in range(len(path), 0, -1))


def _spelled(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest choices, or nothing."""
    near = get_close_matches(word, list(choices))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def problem_of(error: ErrorDetails, origin: Origin, model: type[BaseModel]) -> Problem:
    """Return the problem that one of pydantic's errors stands for."""
    path: Path = tuple(error["loc"])
    given = error["input"]
    at = origin.place(path)
    match error["type"]:
        case "extra_forbidden":
            key, known = str(path[-1]), _keys_at(model, path[:-1])
            what = f"unknown key '{key}'{suggestion(key, known)}"
            return Problem("config-key", what, at, fix=f"choose from: {', '.join(known)}")
        case "missing":
            what = f"'{path[-1]}' is missing"
            return Problem("config-missing", what, at, fix=_example(str(path[-1])))
        case "literal_error":
            choices = [c.strip("'") for c in _expected(error)]
            what = f"'{path[-1]}' is {given!r}{suggestion(str(given), choices)}"
            return Problem("config-value", what, at, fix=f"choose from: {', '.join(choices)}")
        case "value_error":
            what, _, fix = str(error["msg"]).removeprefix("Value error, ").partition(FIX_MARK)
            return Problem("config-value", what, at, fix=fix or None)
        case _:
            name = path[-1] if isinstance(path[-1], str) else _spelled(path)
            expected = _lower_first(str(error["msg"]).removeprefix("Input ").split(", ")[0])
            what = f"'{name}' is {_short(given)}, but {expected}"
            return Problem("config-value", what, at)


def _expected(error: ErrorDetails) -> list[str]:
    text = str(error.get("ctx", {}).get("expected", ""))
    return text.replace(" or ", ", ").split(", ")


def _lower_first(text: str) -> str:
    text = text.replace("valid tuple", "list")
    return f"it {text}" if text.startswith("should") else text[:1].lower() + text[1:]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _example(key: str) -> str:
    examples = {
        "match": 'a pattern of names, as match: "layers.5.*"',
        "train": "train: none, bias, weight or all",
        "name": "a name, as name: adamw",
    }
    return examples.get(key, f"add '{key}'")


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that a place of the configuration may have."""
    for part in path:
        if isinstance(part, int):
            continue
        found = model.model_fields.get(part)
        inner = None if found is None else _model_in(found.annotation)
        if inner is None:
            break
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  a type form
    """Return the model inside Optional, tuple and the like."""
    if get_origin(annotation) is None:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return annotation if is_model else None
    return next((m for a in get_args(annotation) if (m := _model_in(a)) is not None), None)
