"""Times every kernel of a training step, by the runtime's step hook."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from pockc.errors import Problem, UserError
from pockc.runtime.library import Library

if TYPE_CHECKING:
    from pockc.runtime.artifact import Artifact

_HOOK = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64
)


def step_times(
    artifact: Artifact, batch: Sequence[object], steps: int
) -> dict[str, tuple[float, ...]]:
    """Return for each entry of a training step the median ms of each of its kernel calls.

    Args:
        artifact: The artifact; its weights are changed by the steps, of which one more is taken
            first to warm up.
        batch: The model's inputs, then the target.
        steps: How many steps.

    Raises:
        UserError: [no-kernel-times] The artifact has no kernels of its own.
    """
    library = artifact._open_library()
    if not isinstance(library, Library):
        what = "only a program of kernels can be timed kernel by kernel"
        fix = "compile with the backend tvm"
        raise UserError(Problem("no-kernel-times", what, fix=fix))
    taken: dict[tuple[int, int], list[int]] = defaultdict(list)

    def record(_: int | None, entry: int, step: int, begin_ns: int, end_ns: int) -> None:
        taken[entry, step].append(end_ns - begin_ns)

    artifact.train_step(*batch)
    hook = _HOOK(record)
    library.set_step_hook(hook)
    try:
        for _ in range(steps):
            artifact.train_step(*batch)
    finally:
        library.set_step_hook(None)
    ran = {index for index, _ in taken}
    return {
        e.name: tuple(median(taken[e.index, s]) * 1e-6 for s in range(e.steps))
        for e in library.entries.values()
        if e.index in ran
    }
