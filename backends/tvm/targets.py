"""What a kernel generator must know of the machine it generates for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pockc.errors import Problem, UserError


@dataclass(frozen=True, slots=True)
class Target:
    """A processor: what its instruction set offers and how big its caches are.

    Attributes:
        name: The name by which a user chooses it.
        triple: LLVM's triple; also what the linker is told.
        mcpu: LLVM's name of the processor.
        features: Further LLVM features, as `+neon`.
        vector_floats: Floats in a vector register.
        vector_registers: Number of vector registers.
        l1_bytes: First-level data cache of a core.
        l2_bytes: Second-level cache of a core.
        cores: Number of cores; the default number of threads.
    """

    name: str
    triple: str
    mcpu: str
    features: tuple[str, ...]
    vector_floats: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    cores: int

    @property
    def is_aarch64(self) -> bool:
        """Whether it is a 64-bit Arm processor."""
        return self.triple.startswith("aarch64")

    @property
    def key(self) -> str:
        """What compiled code depends on; the number of cores is not part of it."""
        return " ".join(
            (self.triple, self.mcpu, ",".join(self.features), str(self.vector_floats),
             str(self.vector_registers), str(self.l1_bytes), str(self.l2_bytes))
        )  # fmt: skip


_X86, _ARM = "x86_64-linux-gnu", "aarch64-linux-gnu"
_KIB = 1024
_NAMED = {
    t.name: t
    for t in (
        Target("x86-64-v3", _X86, "x86-64-v3", (), 8, 16, 32 * _KIB, 512 * _KIB, 4),
        Target("x86-64-v4", _X86, "x86-64-v4", (), 16, 32, 32 * _KIB, 1024 * _KIB, 4),
        Target("aarch64", _ARM, "generic", ("+neon",), 4, 32, 32 * _KIB, 512 * _KIB, 4),
        Target("rpi4", _ARM, "cortex-a72", ("+neon",), 4, 32, 32 * _KIB, 256 * _KIB, 4),
        Target("rpi5", _ARM, "cortex-a76", ("+neon",), 4, 32, 64 * _KIB, 512 * _KIB, 4),
        Target("jetson-nano", _ARM, "cortex-a57", ("+neon",), 4, 32, 32 * _KIB, 512 * _KIB, 4),
        Target("jetson-xavier", _ARM, "carmel", ("+neon",), 4, 32, 64 * _KIB, 1024 * _KIB, 6),
        Target("jetson-orin", _ARM, "cortex-a78", ("+neon",), 4, 32, 64 * _KIB, 256 * _KIB, 6),
    )
}
NAMES = ("host", *_NAMED)


def get(name: str) -> Target:
    """Return a target by name; `host` is the machine that runs this.

    Raises:
        UserError: [unknown-target] The name is none of `NAMES`.
    """
    if name == "host":
        return _host()
    if name not in _NAMED:
        what = f"there is no target '{name}'"
        raise UserError(Problem("unknown-target", what, fix=f"choose from: {', '.join(NAMES)}"))
    return _NAMED[name]


@lru_cache(maxsize=1)
def _host() -> Target:
    import tvm  # noqa: F401  registers the functions; heavy
    from tvm_ffi import get_global_func

    triple = str(get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())
    mcpu = str(get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    flags = _cpu_flags()
    features: tuple[str, ...] = ()
    if triple.startswith(("aarch64", "arm64")):
        vector, registers = 4, 32
        triple, features = _ARM, ("+neon",)
    elif {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        vector, registers = 16, 32
        triple = _X86
    elif {"avx2", "fma"} <= flags:
        vector, registers = 8, 16
        triple = _X86
    else:
        vector, registers = 4, 16
        triple = _X86
    return Target(
        "host", triple, mcpu, features, vector, registers,
        _cache_bytes(1, 32 * _KIB), _cache_bytes(2, 512 * _KIB), len(os.sched_getaffinity(0)),
    )  # fmt: skip


def _cpu_flags() -> frozenset[str]:
    """Return the features that the kernel reports for the first core."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    found = next((v for k, _, v in lines if k.strip() in ("flags", "Features")), "")
    return frozenset(found.split())


def _cache_bytes(level: int, default: int) -> int:
    """Return the size of a data cache of the first core."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (folder / "type").read_text(encoding="utf-8").strip() == "Instruction":
                continue
            if int((folder / "level").read_text(encoding="utf-8")) == level:
                return (
                    int((folder / "size").read_text(encoding="utf-8").strip().rstrip("K"))
                    * _KIB
                )
        except (OSError, ValueError):
            continue
    return default
