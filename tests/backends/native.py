"""Runs nodes on the kernels that a backend generates: many nodes, one shared library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pockc.backends.base import Kernel
from pockc.backends.tvm import BACKEND
from pockc.ir.attrs import Attrs
from pockc.ir.graph import Graph, Input, Node, Output
from pockc.ir.roles import Batch, Prediction
from pockc.ir.types import TensorType

SHIM = """
#include <stdint.h>
typedef struct { void *sync; int32_t tasks; } env_t;
typedef int (*task_t)(int, env_t *, void *);
extern int (*__TVMBackendParallelLaunch)(task_t, void *, int) __attribute__((weak));
static int tasks = 2;
static int launch(task_t f, void *data, int n) {
    env_t env = {0, n > 0 ? n : tasks};
    for (int i = 0; i < env.tasks; i++) if (f(i, &env, data)) return -1;
    return 0;
}
void shim_open(int n) {
    tasks = n;
    if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = launch;
}
"""


@dataclass(frozen=True)
class Case:
    """A node to run and its operands, logical arrays.

    Attributes:
        node: The node; its inputs' names do not matter.
        types: Types of the operands, with their layouts.
        arrays: The operands.
    """

    node: Node
    types: tuple[TensorType, ...]
    arrays: tuple[np.ndarray, ...]

    @property
    def graph(self) -> Graph:
        """A graph of this one node."""
        inputs = tuple(Input(f"x{i}", t, Batch(str(i))) for i, t in enumerate(self.types))
        node = Node(
            "y", self.node.op, tuple(i.name for i in inputs), self.node.attrs, self.node.type
        )
        return Graph("case", inputs, (node,), (Output("y", Prediction("0")),))


def case(
    op: str,
    result: TensorType,
    types: Sequence[TensorType],
    arrays: Sequence[np.ndarray],
    attrs: Attrs,
) -> Case:
    """Return a case of an op."""
    return Case(Node("y", op, (), attrs, result), tuple(types), tuple(arrays))


def physical(array: np.ndarray, tensor: TensorType) -> np.ndarray:
    """Return the bytes of a tensor as memory holds them, aligned to 64."""
    moved = np.ascontiguousarray(np.asarray(array, tensor.dtype.np).transpose(tensor.order))
    place = aligned(moved.nbytes)
    place[:] = moved.reshape(-1).view(np.uint8)
    return place


def aligned(nbytes: int) -> np.ndarray:
    """Return bytes at an address that is a multiple of 64, filled with a pattern."""
    room = np.full(nbytes + 64, 0xA5, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + nbytes]


def logical(place: np.ndarray, tensor: TensorType) -> np.ndarray:
    """Return bytes in memory's order as a logical array."""
    shaped = place.view(tensor.dtype.np).reshape(tensor.physical_shape)
    return shaped.transpose(np.argsort(tensor.order, kind="stable")) if tensor.rank else shaped


def link_objects(objects: Mapping[str, bytes], folder: Path, threads: int) -> ctypes.CDLL:
    """Return a library of kernels; a loop calls its parts one after the other."""
    (folder / "shim.c").write_text(SHIM, encoding="utf-8")
    paths = []
    for symbol, code in objects.items():
        path = folder / f"{symbol}.o"
        path.write_bytes(code)
        paths.append(str(path))
    library = folder / "kernels.so"
    (folder / "objects.txt").write_text("\n".join(paths), encoding="utf-8")
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1"]
    command += ["-o", str(library), str(folder / "shim.c"), f"@{folder / 'objects.txt'}", "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    loaded = ctypes.CDLL(str(library))
    loaded.shim_open(threads)
    return loaded


def call(
    library: ctypes.CDLL, symbol: str, workspaces: Sequence[int], case: Case
) -> np.ndarray:
    """Call a kernel of a case and return its result as a logical array."""
    places = [physical(a, t) for a, t in zip(case.arrays, case.types, strict=True)]
    inplace = case.node.attrs.get("inplace")
    result = aligned(case.node.type.nbytes) if inplace is None else places[inplace]
    arguments = [*places, *([result] if inplace is None else [])]
    arguments += [aligned(n) for n in workspaces]
    status = getattr(library, symbol)(*[ctypes.c_void_p(a.ctypes.data) for a in arguments])
    if status:
        raise RuntimeError(f"{symbol} gave {status}")
    return logical(result, case.node.type)


class Library:
    """The kernels of some cases, compiled and linked."""

    def __init__(self, cases: Sequence[Case], folder: Path, threads: int = 2) -> None:
        """Compile and link."""
        self.selections = [BACKEND.select(c.graph, "host", threads) for c in cases]
        kernels: dict[str, Kernel] = {}
        for selection in self.selections:
            kernels.update(selection.kernels)
        objects = BACKEND.build(list(kernels.values()), "host")
        self.library = link_objects(objects, folder, threads)

    def run(self, number: int, case: Case) -> np.ndarray:
        """Run a case and return its result as a logical array."""
        selection = self.selections[number]
        if not selection.calls:
            raise ValueError("the case is a view")
        found = selection.calls["y"]
        return call(self.library, found.symbol, found.workspace_bytes, case)
