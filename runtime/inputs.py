"""Checks what a caller gives before a step begins: number, shape, type and values.

All that is wrong with one call is reported together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import BY_NAME, Array, raw_from
from pockc.runtime.manifest import InputSpec


def spelled(spec: InputSpec, rows: int | None = None) -> str:
    """Return an input as messages show it: `x f32[8,3,224,224]`."""
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    return f"{spec.name} {spec.dtype}[{','.join(map(str, shape))}]"


def check_inputs(
    entry: str, specs: Sequence[InputSpec], given: Sequence[object], any_rows: bool = False
) -> list[Array]:
    """Return the inputs of a call as contiguous arrays of exactly the types of `specs`.

    Args:
        entry: Name of the entry, for messages.
        specs: What is expected.
        given: Arrays, or whatever NumPy makes an array of.
        any_rows: Allow any number of rows, the same for all batched inputs.

    Raises:
        UserError: [input-count], [input-shape], [input-type], [input-values].
    """
    if len(given) != len(specs):
        raise UserError(
            Problem(
                "input-count",
                f"{entry} takes {len(specs)} inputs and got {len(given)}",
                fix=f"give, in this order: {', '.join(map(spelled, specs)) or 'nothing'}",
            )
        )
    arrays = [np.asarray(g) for g in given]
    rows = _rows(specs, arrays) if any_rows else None
    problems: list[Problem] = []
    checked = []
    for spec, array in zip(specs, arrays, strict=True):
        found = list(_problems(entry, spec, array, rows if spec.batched else None))
        problems += found
        checked.append(array if found else _converted(spec, array))
    if problems:
        raise UserError(*problems)
    return checked


def _rows(specs: Sequence[InputSpec], arrays: Sequence[Array]) -> int | None:
    """Return the rows of the first batched input, by which the others are measured."""
    for spec, array in zip(specs, arrays, strict=True):
        if spec.batched and array.ndim:
            return int(array.shape[0])
    return None


def _problems(entry: str, spec: InputSpec, array: Array, rows: int | None) -> Iterator[Problem]:
    expected = spec.shape if rows is None else (rows, *spec.shape[1:])
    if array.shape != expected:
        got = f"[{','.join(map(str, array.shape))}]"
        yield Problem(
            "input-shape",
            f"{entry} expects {spelled(spec, rows)} and got shape {got}",
            fix=_shape_fix(spec, array, expected),
        )
        return
    if not _convertible(spec, array):
        yield Problem(
            "input-type",
            f"{entry} expects {spelled(spec, rows)} and got {array.dtype}",
            fix=f"convert it: {spec.name}.astype({str(BY_NAME[spec.dtype].numpy)!r})",
        )
        return
    yield from _value_problems(entry, spec, array)


def _shape_fix(spec: InputSpec, array: Array, expected: tuple[int, ...]) -> str:
    same_rest = array.ndim == len(expected) and array.shape[1:] == expected[1:]
    if spec.batched and same_rest:
        return f"give batches of {expected[0]} rows, or compile for {array.shape[0]}"
    return "give the shape that the model was compiled for, or compile for this one"


def _convertible(spec: InputSpec, array: Array) -> bool:
    """Return whether values keep their meaning: floats to floats, integers to integers."""
    kind, given = BY_NAME[spec.dtype].kind, array.dtype.kind
    if kind == "i":
        return given in "iu"
    return given == kind


def _value_problems(entry: str, spec: InputSpec, array: Array) -> Iterator[Problem]:
    if array.dtype.kind not in "iu" or array.size == 0:
        return
    allowed = spec.values
    if allowed is None:
        info = np.iinfo(BY_NAME[spec.dtype].numpy)
        low, high, ignore, meaning = int(info.min), int(info.max), None, "value"
    else:
        low, high, ignore, meaning = allowed.low, allowed.high, allowed.ignore, allowed.meaning
    wrong = (array < low) | (array > high)
    if ignore is not None:
        wrong &= array != ignore
    if not wrong.any():
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    besides = "" if ignore is None else f" (or {ignore}, which does not count)"
    yield Problem(
        "input-values",
        f"{entry} got the {meaning} {array[at]} in {spec.name}{list(at)}, "
        f"expected {low} to {high}{besides}",
        fix=f"{int(wrong.sum())} of {array.size} are out of range: correct the data, or "
        "compile the model for more",
    )


def _converted(spec: InputSpec, array: Array) -> Array:
    element = BY_NAME[spec.dtype]
    if element.name == "bf16":
        return raw_from(array, element)
    return np.ascontiguousarray(array, dtype=element.numpy)


def row_count(specs: Sequence[InputSpec], arrays: Sequence[Array]) -> int:
    """Return the rows of a checked batch; 1 if no input is batched."""
    rows = _rows(specs, arrays)
    return 1 if rows is None else rows


def padded(specs: Sequence[InputSpec], arrays: Sequence[Array], rows: int) -> list[Array]:
    """Return the batch with its last row repeated up to `rows`.

    A real row rather than zeros: a mask of zeros would make a NaN of every attention weight.
    """
    return [_padded(a, rows) if s.batched else a for s, a in zip(specs, arrays, strict=True)]


def _padded(array: Array, rows: int) -> Array:
    lacking = rows - array.shape[0]
    if lacking <= 0:
        return array
    return np.concatenate([array, np.repeat(array[-1:], lacking, axis=0)])


def sliced(
    specs: Sequence[InputSpec], arrays: Sequence[Array], begin: int, end: int
) -> list[Array]:
    """Return rows `begin` to `end` of a batch."""
    return [a[begin:end] if s.batched else a for s, a in zip(specs, arrays, strict=True)]


def as_tuple(batch: Any) -> tuple[object, ...]:  # noqa: ANN401  one array or several
    """Return a batch as a tuple of its arrays."""
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def drawn(spec: InputSpec, rng: np.random.Generator) -> Array:
    """Return random values of an input: normal (bf16 as float32), or integers it may hold."""
    element = BY_NAME[spec.dtype]
    if element.kind == "f":
        normal = rng.standard_normal(spec.shape, np.float32)
        return normal if element.name == "bf16" else normal.astype(element.numpy)
    low, high = (0, 1) if spec.values is None else (spec.values.low, spec.values.high)
    return rng.integers(low, high, spec.shape, endpoint=True).astype(element.numpy)
