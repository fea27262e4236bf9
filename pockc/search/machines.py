"""What a machine reaches at most: of data sheets, where nobody has measured it.

A profile measures both figures on the device, and `host_peaks` on this machine. Those of
boards here are theory, for a first estimate before there is a profile: clock and memory of
the maker's data sheet, multiply-adds of a cycle from Arm's software optimization guides, and
of the memory's rate what STREAM's triad leaves of it on a Raspberry Pi 4 (4.8 of 12.8 GB/s,
sci-pi.org.uk/bench/stream.html).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pockc.backends.native import build_device
from pockc.backends.tvm.targets import Target
from pockc.errors import PockcError


@dataclass(frozen=True, slots=True)
class Peaks:
    """What some threads reach together at their best.

    Attributes:
        gflops: Fused multiply-adds, each two operations; 10^9 per second.
        gbs: Bytes of memory, 10^9 per second (STREAM's triad).
    """

    gflops: float
    gbs: float

    @property
    def is_known(self) -> bool:
        """Whether both were measured: a recording has 0 where it could not."""
        return self.gflops > 0 and self.gbs > 0

    def or_better(self, other: Peaks) -> Peaks:
        """Return the better of two measurements: other work makes a machine slower only."""
        return Peaks(max(self.gflops, other.gflops), max(self.gbs, other.gbs))


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A data sheet: clock, multiply-add instructions of a core and cycle, rate of memory."""

    ghz: float
    fma_a_cycle: float
    memory_gbs: float


MEMORY_SHARE = 0.38
"""What a program can use of the memory's rate, see above."""

_SHEETS = {
    "rpi3": _Sheet(1.2, 1, 3.6),
    "zero2": _Sheet(1.0, 1, 3.6),
    "rpi4": _Sheet(1.5, 1, 12.8),
    "rpi5": _Sheet(2.4, 2, 17.1),
    "jetson-nano": _Sheet(1.43, 1, 25.6),
    "jetson-xavier": _Sheet(1.9, 2, 51.2),
    "jetson-orin": _Sheet(1.5, 2, 68.0),
    "armv7": _Sheet(0.9, 0.5, 3.6),
    "x86-64-v3": _Sheet(3.0, 2, 42.7),
    "x86-64-v4": _Sheet(2.5, 2, 100.0),
}
_ARM, _X86 = _Sheet(1.5, 1, 12.8), _Sheet(2.5, 2, 42.7)


def theoretical_peaks(target: Target, threads: int) -> Peaks:
    """Return what data sheets let expect of so many threads, no more than there are cores."""
    sheet = _SHEETS.get(target.name, _X86 if target.arch == "x86_64" else _ARM)
    flops = 2 * target.vector_floats * sheet.fma_a_cycle * sheet.ghz
    return Peaks(flops * min(threads, target.cores), sheet.memory_gbs * MEMORY_SHARE)


def last_cache_bytes(target: Target) -> int:
    """Return what the last cache before the memory holds, the third level if there is one."""
    third = _THIRD_LEVEL.get(target.name, 0)
    if target.name == "host":
        with contextlib.suppress(OSError, ValueError):
            third = int(_HOST_CACHE.read_text(encoding="utf-8").strip().rstrip("K")) << 10
    return max(third, target.l2_bytes * target.cores)


_HOST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_THIRD_LEVEL = {"rpi5": 2 << 20, "jetson-xavier": 4 << 20, "jetson-orin": 2 << 20}


@lru_cache
def host_peaks(threads: int) -> Peaks | None:
    """Return what this machine reaches, by `pock-run peak`: half a second; None if it fails."""
    with tempfile.TemporaryDirectory(prefix="pockc-peak-") as name:
        try:
            _, program = build_device(Path(name))
            command = [str(program), "peak", "--threads", str(threads), "--json"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout)
            found = Peaks(float(told["gflops"]), float(told["gbs"]))
        except (PockcError, OSError, subprocess.SubprocessError, ValueError, KeyError):
            return None  # a first estimate by theory is better than no plan
    return found if found.is_known else None
