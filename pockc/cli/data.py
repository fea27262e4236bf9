"""Reads data for `train`, `eval` and `predict` from .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.manifest import InputSpec

TARGET_NAMES = ("target", "targets", "y", "label", "labels")
"""How the target may be called; the first is the name of the input itself."""

INPUT_NAMES = ("x", "X", "input", "inputs")
"""How the input of a model that has only one may be called, besides its own name."""


def read_data(path: Path, specs: Sequence[InputSpec], entry: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file by the names of an entry's inputs.

    Arrays of other names are ignored: one file serves `eval` and `predict`.

    Args:
        path: An .npz file.
        specs: The inputs of the entry.
        entry: Its name, for messages.

    Raises:
        UserError: [data-file] It cannot be read; [data-names] an array is missing.
    """
    arrays = _arrays(path)
    accepted = {s.name: _accepted(s, specs) for s in specs}
    found = {
        name: next((n for n in names if n in arrays), None) for name, names in accepted.items()
    }
    missing = [name for name, known_as in found.items() if known_as is None]
    if missing:
        raise UserError(*_missing(path, entry, missing, accepted, list(arrays)))
    return {name: arrays[known_as] for name, known_as in found.items() if known_as is not None}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise _single_array(path)
        with loaded as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        what = f"there is no file {path}"
        raise UserError(Problem("data-file", what, fix="check the path")) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(
            Problem(
                "data-file",
                f"cannot read {path} as .npz: {error}",
                fix="write it with numpy.savez(path, x=..., target=...), numbers only",
            )
        ) from None


def _single_array(path: Path) -> UserError:
    what = f"{path} holds a single array without a name"
    fix = "write it with numpy.savez(path, x=..., target=...)"
    return UserError(Problem("data-file", what, fix=fix))


def _accepted(spec: InputSpec, specs: Sequence[InputSpec]) -> tuple[str, ...]:
    """Return the names that an input's array may have, the best first."""
    if spec.name == TARGET_NAMES[0]:
        return TARGET_NAMES
    others = [s for s in specs if s.name != TARGET_NAMES[0]]
    if len(others) == 1:
        return (spec.name, *(n for n in INPUT_NAMES if n != spec.name))
    position = others.index(spec)
    return tuple(dict.fromkeys((spec.name, f"x{position}", f"x_{position}")))


def _missing(
    path: Path,
    entry: str,
    missing: Sequence[str],
    accepted: Mapping[str, Sequence[str]],
    present: Sequence[str],
) -> Iterator[Problem]:
    for name in missing:
        near = [n for a in accepted[name] for n in get_close_matches(a, present, n=1)]
        hint = f"; is it '{near[0]}'?" if near else ""
        shown = ", ".join(present) or "none"
        yield Problem(
            "data-names",
            f"{entry} needs an array '{name}', the file has {shown}{hint}",
            at=str(path),
            fix=f"call it {' or '.join(accepted[name])}",
        )
