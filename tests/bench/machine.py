"""What this machine can do at most, measured: FMA peak and memory bandwidth; and what it is."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pockc.backends.native.zig import run_zig

SOURCE = Path(__file__).with_name("machine.c")
_FMA_ROUNDS = 4_000_000
_TRIAD_FLOATS = 16 << 20  # 64 MiB an array: more than any cache that a share of it may lie in
_REPEATS = 15


@dataclass(frozen=True)
class Peak:
    """What some threads reach together, at their best.

    Attributes:
        threads: How many.
        gflops: Fused multiply-adds out of registers, each counted as two operations.
        triad_gbs: Bytes per second of `a = b + s * c` over arrays larger than the caches; the
            write counts once, as in STREAM.
    """

    threads: int
    gflops: float
    triad_gbs: float

    def or_better(self, other: Peak) -> Peak:
        """Return the best of two measurements with as many threads."""
        best = (max(self.gflops, other.gflops), max(self.triad_gbs, other.triad_gbs))
        return Peak(self.threads, *best)


@functools.cache
def library() -> Any:
    """Return the compiled `machine.c`, made for this processor."""
    with tempfile.TemporaryDirectory(prefix="pockc-bench-") as name:
        folder = Path(name)
        shutil.copy(SOURCE, folder / SOURCE.name)
        flags = ("-O3", "-mcpu=native", "-fno-sanitize=undefined", "-shared", "-fPIC")
        run_zig(("cc", *flags, SOURCE.name, "-o", "machine.so"), folder)
        dll = ctypes.CDLL(str(folder / "machine.so"))
    pointer = ctypes.c_void_p
    dll.bench_fma.argtypes = (ctypes.c_uint64, ctypes.c_float, ctypes.c_float, pointer)
    dll.bench_fma.restype = ctypes.c_uint64
    dll.bench_fma_floats.restype = ctypes.c_uint32
    dll.bench_triad.argtypes = (ctypes.c_size_t, ctypes.c_float, pointer, pointer, pointer)
    dll.bench_triad.restype = None
    return dll


def fma(rounds: int, scale: float, add: float, sums: np.ndarray[Any, Any]) -> int:
    """Apply s = s * scale + add to every one of `sums`; return the number of multiply-adds."""
    dll = library()
    if sums.dtype != np.float32 or sums.size != dll.bench_fma_floats():
        raise ValueError(f"needs {dll.bench_fma_floats()} floats")
    return int(dll.bench_fma(rounds, scale, add, sums.ctypes.data))


def measure_peak(threads: int) -> Peak:
    """Return what this machine reaches with so many threads."""
    return Peak(threads, _fma_gflops(threads), _triad_gbs(threads))


def _fma_gflops(threads: int) -> float:
    floats = library().bench_fma_floats()

    def work(_: int) -> int:
        return fma(_FMA_ROUNDS, 0.5, 1.0, np.ones(floats, np.float32))

    return _best_rate(threads, work) * 2e-9


def _triad_gbs(threads: int) -> float:
    arrays = [np.ones(_TRIAD_FLOATS, np.float32) for _ in range(3)]
    share = _TRIAD_FLOATS // threads

    def work(index: int) -> int:
        b, c, to = (a[index * share :].ctypes.data for a in arrays)
        library().bench_triad(share, 3.0, b, c, to)
        return 3 * 4 * share

    return _best_rate(threads, work) * 1e-9


def _best_rate(threads: int, work: Callable[[int], int]) -> float:
    """Return the most per second over some repetitions; ctypes lets the threads run at once."""
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_REPEATS):
            began = time.perf_counter()
            done = sum(pool.map(work, range(threads)))
            best = max(best, done / (time.perf_counter() - began))
    return best


def description() -> str:
    """Return processor, cores and system in one line."""
    model = platform.processor() or platform.machine()
    cores = 0
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        cores += key.strip() == "processor"
        if key.strip() in ("model name", "Model"):
            model = value.strip()
    return f"{model}, {cores} cores, {platform.system()} {platform.machine()}"
