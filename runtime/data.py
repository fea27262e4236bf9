"""Batches out of what a user has: arrays of all rows, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pockc.errors import Problem, UserError
from pockc.runtime.dtypes import Array
from pockc.runtime.manifest import InputSpec
from pockc.runtime.order import rows_at

Batches = tuple[Any, ...] | Mapping[str, Any] | Iterable[Any] | Callable[[], Iterable[Any]]
"""One tuple, or dict by input name, of arrays with all rows; or batches of such, in an iterable
or in a function that returns one."""


def whole_arrays(specs: Sequence[InputSpec], data: Batches) -> tuple[Array, ...] | None:
    """Return arrays with all rows in the order of the inputs, None if `data` is batches.

    Raises:
        UserError: [data-names] A dict lacks an input; [data-rows] the arrays differ in rows.
    """
    if isinstance(data, Mapping):
        arrays = tuple(_as_array(a) for a in in_order(specs, data))
    elif isinstance(data, tuple) and all(hasattr(a, "shape") for a in data):
        arrays = tuple(_as_array(a) for a in data)
    else:
        return None
    batched = [a for s, a in zip(specs, arrays, strict=False) if s.batched]
    rows = {int(a.shape[0]) if a.ndim else 0 for a in batched}
    if len(rows) > 1:
        found = ", ".join(
            f"{s.name} has {len(a)}" for s, a in zip(specs, arrays, strict=False) if s.batched
        )
        what = f"the arrays have different numbers of rows: {found}"
        raise UserError(Problem("data-rows", what, fix="give one row per sample in each"))
    return arrays


def _as_array(data: object) -> Array:
    # A memory-mapped array stays one.
    return data if isinstance(data, np.ndarray) else np.asarray(data)


def in_order(specs: Sequence[InputSpec], batch: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Return the arrays of a batch, which may be a dict by name, in the order of the inputs.

    Raises:
        UserError: [data-names] A dict lacks an input.
    """
    if not isinstance(batch, Mapping):
        return tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    lacking = [s.name for s in specs if s.name not in batch]
    if lacking:
        what = f"the data lacks {', '.join(lacking)}; it has {', '.join(map(str, batch))}"
        fix = f"name the arrays {', '.join(s.name for s in specs)}"
        raise UserError(Problem("data-names", what, fix=fix))
    return tuple(batch[s.name] for s in specs)


def rows_of(specs: Sequence[InputSpec], arrays: Sequence[Array]) -> int:
    """Return the number of rows of arrays with all rows."""
    return next((len(a) for s, a in zip(specs, arrays, strict=False) if s.batched), 0)


def take_rows(
    specs: Sequence[InputSpec], arrays: Sequence[Array], rows: slice | Array
) -> tuple[Array, ...]:
    """Return the given rows of every batched array."""
    pairs = zip(specs, arrays, strict=False)
    taken = [a[rows] if s.batched else a for s, a in pairs]
    return (*taken, *arrays[len(specs) :])


def in_sequence(
    specs: Sequence[InputSpec], data: Batches, rows: int
) -> Iterator[tuple[Any, ...]]:
    """Yield all rows once, in order; the last batch may be smaller."""
    arrays = whole_arrays(specs, data)
    if arrays is None:
        batches = data() if callable(data) else data
        yield from (in_order(specs, b) for b in batches)
        return
    for begin in range(0, rows_of(specs, arrays), rows):
        yield take_rows(specs, arrays, slice(begin, begin + rows))


class Epochs:
    """The batches of each epoch of a training run.

    Arrays are shuffled by seed and epoch alone, so that a run can be taken up again at any
    step; rows that fill no batch are left out, other ones in every epoch. An iterable is taken
    as it comes.
    """

    def __init__(
        self,
        specs: Sequence[InputSpec],
        data: Batches,
        rows: int,
        shuffle_seed: int | None,
        epochs: int,
    ) -> None:
        """Look at the data; nothing is read yet.

        Raises:
            UserError: [too-few-rows] They fill no batch; [data-once] an iterator for several
                epochs.
        """
        self._specs = specs
        self._data = data
        self._rows = rows
        self._seed = shuffle_seed
        self._arrays = whole_arrays(specs, data)
        self.steps = self._count()
        if self.steps == 0:
            total = 0 if self._arrays is None else rows_of(specs, self._arrays)
            what = f"the data has {total} rows, a step takes {rows}"
            fix = "give more data, or compile for a smaller batch"
            raise UserError(Problem("too-few-rows", what, fix=fix))
        if epochs > 1 and isinstance(data, Iterator):
            what = f"an iterator gives its batches once, {epochs} epochs need them again"
            fix = "give a list, or a function that returns a new iterator"
            raise UserError(Problem("data-once", what, fix=fix))

    def _count(self) -> int | None:
        if self._arrays is not None:
            return rows_of(self._specs, self._arrays) // self._rows
        try:
            return len(self._data)  # type: ignore[arg-type]
        except TypeError:
            return None

    def batches(self, epoch: int, skip: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of an epoch, counted from 0, without the first `skip`."""
        if self._arrays is None:
            source = self._data() if callable(self._data) else self._data
            for i, batch in enumerate(source):
                if i >= skip:
                    yield in_order(self._specs, batch)
            return
        total = rows_of(self._specs, self._arrays)
        for i in range(skip, total // self._rows):
            rows = np.arange(i * self._rows, (i + 1) * self._rows)
            if self._seed is not None:
                rows = rows_at(total, self._seed, epoch, rows)
            yield take_rows(self._specs, self._arrays, rows)
