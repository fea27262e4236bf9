"""What a pass is, how passes are run, and how they are named from the shell.

A pass is a frozen dataclass whose fields are its options. It is a function from a graph to a
graph: it keeps no state, never changes its argument, and returns the very same object if there
was nothing to do. `run_passes` checks the graph after every pass and can write it to a folder.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import pkgutil
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from pockc.errors import Problem, UserError
from pockc.ir import Graph, print_graph
from pockc.ir.verify import STRUCTURE, Invariant, verify

log = logging.getLogger("pockc.passes")
"""At `info` one line per pass; at `debug` one line per rewrite, with the reason."""

# An error shows the graph it happened on, but not a whole BERT.
NOTE_LINES = 120

INPUT_STAGE = "00_input"
"""The stage before the first pass."""


@runtime_checkable
class Pass(Protocol):
    """A frozen dataclass whose fields are its options; `repr` names it in dumps and errors.

    A pass is a function of its options and the graph: it keeps no state and never changes its
    argument. It returns the very same object if there was nothing to do.
    """

    requires: ClassVar[tuple[Invariant, ...]]
    ensures: ClassVar[tuple[Invariant, ...]]

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph after the pass."""
        ...


Keep = Callable[[str, Graph], None]
"""Called with the name of a stage, as `04_PruneBackward`, and its graph."""


def run_passes(
    graph: Graph,
    passes: Sequence[Pass],
    dump_to: Path | None = None,
    first: int = 1,
    keep: Keep | None = None,
) -> Graph:
    """Run passes in order, verifying the graph after each.

    Args:
        graph: A well-formed graph.
        passes: What to run.
        dump_to: Folder for `00_input.pock` and `NN_<Pass>.pock` of every pass that changed
            something. Without it, `POCKC_DUMP` names a folder, with one folder per graph in it.
        first: Number of the first pass, where the list continues another.
        keep: Given what a dump would hold.

    Raises:
        PockcError: A pass, or a check before or after it, failed. Notes name the pass and show
            the graph it got.
    """
    _configure_logging()
    folder = dump_to or _dump_folder(graph)

    def changed(name: str) -> None:
        _dump(folder, name, graph)
        if keep is not None:
            keep(name, graph)

    if first == 1:
        changed(INPUT_STAGE)
    last = first + len(passes) - 1
    for number, step in enumerate(passes, first):
        before, began = graph, time.perf_counter()
        try:
            verify(graph, step.requires)
            graph = step(graph)
            if graph is not before:
                verify(graph, (*STRUCTURE, *step.ensures))
        except Exception as error:
            _note(error, f"in pass {number} of {last}: {step!r}")
            _note(error, _excerpt(before))
            raise
        elapsed_ms = (time.perf_counter() - began) * 1e3
        log.info(
            "%s %02d %s: %d -> %d nodes, %.1f ms",
            *(graph.name, number, type(step).__name__),
            *(len(before.nodes), len(graph.nodes), elapsed_ms),
        )
        if graph is not before:
            changed(f"{number:02d}_{type(step).__name__}")
    return graph


def _dump_folder(graph: Graph) -> Path | None:
    folder = os.environ.get("POCKC_DUMP")
    return Path(folder) / graph.name if folder else None


def _dump(folder: Path | None, name: str, graph: Graph) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pock").write_text(print_graph(graph), encoding="utf-8")


def _excerpt(graph: Graph) -> str:
    lines = print_graph(graph).splitlines()
    if len(lines) > NOTE_LINES:
        more = f"  ... {len(lines) - NOTE_LINES} more lines; POCKC_DUMP=folder keeps them all"
        lines = [*lines[:NOTE_LINES], more]
    return "\n".join(lines)


def _note(error: BaseException, text: str) -> None:
    """Add a note to an exception; Python 3.10 has the place for it but not the method."""
    notes = [*getattr(error, "__notes__", ()), text]
    setattr(error, "__notes__", notes)  # noqa: B010  typeshed knows it from 3.11 on


@functools.cache
def _configure_logging() -> None:
    level = os.environ.get("POCKC_LOG", "").upper()
    if level in ("INFO", "DEBUG"):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger("pockc").addHandler(handler)
        logging.getLogger("pockc").setLevel(level)


@functools.cache
def known_passes() -> Mapping[str, type[Pass]]:
    """Return every pass by the name of its file; a pass is a class that bears that name.

    There is no list to edit: a file `fold_constants.py` that defines `FoldConstants` is a pass.
    """
    package = importlib.import_module("pockc.passes")
    table: dict[str, type[Pass]] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if module.ispkg:
            continue
        loaded = importlib.import_module(f"pockc.passes.{module.name}")
        found = getattr(loaded, class_name(module.name), None)
        if isinstance(found, type) and isinstance(getattr(found, "ensures", None), tuple):
            table[module.name] = found
    return table


def class_name(file_name: str) -> str:
    """Return the class of a file's pass, as `FoldConstants` of `fold_constants`."""
    return "".join(word.capitalize() for word in file_name.split("_"))


_ITEM = re.compile(r"\s*(?P<name>\w+)\s*(?:\{(?P<options>[^{}]*)\})?\s*(?:,|$)")


def parse_passes(text: str) -> tuple[Pass, ...]:
    """Return the passes that a text names, as `prune_backward{trainable=fc.weight},layout`.

    Options stand in braces, separated by semicolons; the items of a list by commas.

    Raises:
        UserError: [pass-syntax], [unknown-pass] or [pass-option], naming the choices.
    """
    found: list[Pass] = []
    at = 0
    while at < len(text.strip()):
        item = _ITEM.match(text, at)
        if not item:
            raise UserError(
                Problem(
                    "pass-syntax",
                    f"cannot read passes from {text[at:]!r} on",
                    fix="write passes as name{option=value; option=a,b},name",
                )
            )
        found.append(_make(item["name"], item["options"] or ""))
        at = item.end()
    return tuple(found)


def _make(name: str, options: str) -> Pass:
    table = known_passes()
    if name not in table:
        near = get_close_matches(name, table)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(
            Problem(
                "unknown-pass",
                f"there is no pass '{name}'{hint}",
                fix=f"choose from: {', '.join(table)}",
            )
        )
    return _with_options(name, table[name], dict(_pairs(name, options)))


def _pairs(name: str, options: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, (p.strip() for p in options.split(";"))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(_bad_option(name, f"option '{pair}' has no value"))
        yield key.strip(), value.strip()


def _with_options(name: str, step: type[Pass], given: Mapping[str, str]) -> Pass:
    known = {f.name: f for f in fields(cast("Any", step))}
    readers = {k: _READERS.get(str(f.type)) for k, f in known.items()}
    choices = ", ".join(k for k, read in readers.items() if read) or "none"
    values: dict[str, Any] = {}
    for key, text in given.items():
        read = readers.get(key)
        if read is None:
            raise UserError(_bad_option(name, f"there is no option '{key}' in text", choices))
        try:
            values[key] = read(text)
        except ValueError:
            raise UserError(
                _bad_option(name, f"option '{key}' cannot be {text!r}", choices)
            ) from None
    missing = [
        k
        for k, f in known.items()
        if k not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UserError(_bad_option(name, f"option '{missing[0]}' is missing", choices))
    return step(**values)


def _bad_option(name: str, what: str, choices: str | None = None) -> Problem:
    fix = None if choices is None else f"options of {name}: {choices}"
    return Problem("pass-option", f"pass '{name}': {what}", fix=fix)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (t.strip() for t in text.split(","))))


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


# By the annotation of the field: what a shell can say. Other options come from Python only.
_READERS: Mapping[str, Callable[[str], object]] = {
    "frozenset[str]": lambda text: frozenset(_names(text)),
    "tuple[str, ...]": _names,
    "int": int,
    "float": float,
    "bool": _flag,
    "str": str,
}
