"""What a kernel generator must know of the machine it generates for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.runtime.opening import cpu_features


@dataclass(frozen=True, slots=True)
class Target:
    """A processor: what its instruction set offers and how big its caches are.

    Attributes:
        name: How a user chooses it.
        triple: LLVM's triple; also what the linker is told.
        mcpu: LLVM's name of the processor.
        features: Further LLVM features, as `+neon`.
        vector_floats: Floats in a vector register.
        vector_registers: Number of vector registers.
        l1_bytes: First-level data cache of a core.
        l2_bytes: Second-level cache of a core; a shared one divided by the cores.
        cores: Number of cores; the default number of threads.
        boards: Which machines have it, for people.
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
    boards: str = ""

    @property
    def arch(self) -> str:
        """The instruction set, as `aarch64`: the first part of the triple."""
        return self.triple.partition("-")[0]

    @property
    def is_aarch64(self) -> bool:
        """Whether it is a 64-bit Arm processor."""
        return self.arch == "aarch64"

    @property
    def loads_ahead(self) -> bool:
        """Whether LLVM unrolls its loops and moves loads ahead, which takes registers."""
        return self.mcpu in _IN_ORDER

    @property
    def vectors(self) -> str:
        """The vector registers, for people: as `NEON, 32 x 128 bit`."""
        names = {4: "SSE", 8: "AVX2", 16: "AVX-512"}
        name = names[self.vector_floats] if self.arch == "x86_64" else "NEON"
        return f"{name}, {self.vector_registers} x {32 * self.vector_floats} bit"

    @property
    def key(self) -> str:
        """What compiled code depends on; the number of cores is not part of it."""
        return " ".join(
            (self.triple, self.mcpu, ",".join(self.features), str(self.vector_floats),
             str(self.vector_registers), str(self.l1_bytes), str(self.l2_bytes))
        )  # fmt: skip


_IN_ORDER = frozenset(f"cortex-a{n}" for n in (7, 32, 34, 35, 53, 55, 320, 510, 520))
X86, ARM = "x86_64-linux-gnu", "aarch64-linux-gnu"
# Of four parts: LLVM takes the second of three for the maker, and misses what the ABI is.
ARM32 = "armv7l-unknown-linux-gnueabihf"
_KIB = 1024
_NEON = ("+neon",)
_NAMED = {
    t.name: t
    for t in (
        Target("x86-64-v3", X86, "x86-64-v3", (), 8, 16, 32 * _KIB, 512 * _KIB, 4,
               "PCs since 2013: Haswell, Zen and later"),
        Target("x86-64-v4", X86, "x86-64-v4", (), 16, 32, 32 * _KIB, 1024 * _KIB, 4,
               "servers with AVX-512: Skylake-SP, Zen 4 and later"),
        Target("aarch64", ARM, "generic", _NEON, 4, 32, 32 * _KIB, 512 * _KIB, 4,
               "any 64-bit Arm board"),
        Target("rpi3", ARM, "cortex-a53", _NEON, 4, 32, 32 * _KIB, 128 * _KIB, 4,
               "Raspberry Pi 3, 64-bit system"),
        Target("zero2", ARM, "cortex-a53", _NEON, 4, 32, 32 * _KIB, 128 * _KIB, 4,
               "Raspberry Pi Zero 2 W, 64-bit system"),
        Target("rpi4", ARM, "cortex-a72", _NEON, 4, 32, 32 * _KIB, 256 * _KIB, 4,
               "Raspberry Pi 4, 400"),
        Target("rpi5", ARM, "cortex-a76", _NEON, 4, 32, 64 * _KIB, 512 * _KIB, 4,
               "Raspberry Pi 5, 500"),
        Target("jetson-nano", ARM, "cortex-a57", _NEON, 4, 32, 32 * _KIB, 512 * _KIB, 4,
               "Jetson Nano, TX1"),
        # LLVM has no model of its processor, Carmel, and spills when told its name.
        Target("jetson-xavier", ARM, "generic", (*_NEON, "+v8.2a", "+fullfp16"), 4, 32,
               64 * _KIB, 1024 * _KIB, 6, "Jetson Xavier NX, AGX Xavier"),
        Target("jetson-orin", ARM, "cortex-a78ae", _NEON, 4, 32, 64 * _KIB, 256 * _KIB, 6,
               "Jetson Orin Nano, Orin NX, AGX Orin"),
        # As LLVM knows a Cortex-A7, whose fused multiply-add is slow. Most boards with a 32-bit
        # system have a later processor, where two instructions and a register more are slower.
        Target("armv7", ARM32, "cortex-a7", (*_NEON, "-slowfpvfmx", "-slowfpvmlx"), 4, 16,
               32 * _KIB, 128 * _KIB, 4, "Raspberry Pi 2 and later with a 32-bit system"),
    )
}  # fmt: skip
NAMES = ("host", *_NAMED)


def get(name: str) -> Target:
    """Return a target by its name, or by a target string of TVM.

    Args:
        name: One of `NAMES`, where `host` is the machine that runs this; or as
            `llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73`.

    Raises:
        UserError: [unknown-target] The name is none of `NAMES`; or what `parse` of
            `target_string` raises.
    """
    if name == "host":
        return _host()
    if name in _NAMED:
        return _NAMED[name]
    if name.split()[:1] == ["llvm"] or " -" in name or name.lstrip().startswith("{"):
        from pockc.backends.tvm.target_string import parse

        return parse(name)
    near = get_close_matches(name, NAMES, n=1)
    hint = f"; is it '{near[0]}'?" if near else ""
    raise UserError(
        Problem(
            "unknown-target",
            f"there is no target '{name}'{hint}",
            fix=f"choose from: {', '.join(NAMES)}; or give TVM's "
            "'llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73'",
        )
    )


def of_processor(triple: str, mcpu: str) -> Target | None:
    """Return a named target with that processor, None if no board has it."""
    arch = triple.partition("-")[0]
    return next((t for t in _NAMED.values() if (t.arch, t.mcpu) == (arch, mcpu)), None)


@lru_cache(maxsize=1)
def _host() -> Target:
    import tvm  # noqa: F401  registers the functions; heavy
    from tvm_ffi import get_global_func

    triple = str(get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())
    mcpu = str(get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    flags = cpu_features()
    features: tuple[str, ...] = ()
    if triple.startswith(("aarch64", "arm64")):
        vector, registers = 4, 32
        triple, features = ARM, _NEON
    elif {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        vector, registers = 16, 32
        triple = X86
    elif {"avx2", "fma"} <= flags:
        vector, registers = 8, 16
        triple = X86
    else:
        vector, registers = 4, 16
        triple = X86
    return Target(
        "host", triple, mcpu, features, vector, registers,
        _cache_bytes(1, 32 * _KIB), _cache_bytes(2, 512 * _KIB), len(os.sched_getaffinity(0)),
    )  # fmt: skip


# LLVM's name of what generated code may use, and how /proc/cpuinfo calls it. What processors
# have beyond, as instructions for encryption, no kernel uses.
_REPORTED = {
    "x86_64": {
        "sse4.2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c",
        "bmi2": "bmi2", "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd",
        "avx512dq": "avx512dq", "avx512vl": "avx512vl", "avx512vnni": "avx512_vnni",
        "avx512bf16": "avx512_bf16",
    },
    "aarch64": {
        "lse": "atomics", "fullfp16": "asimdhp", "dotprod": "asimddp", "sve": "sve",
        "sve2": "sve2", "i8mm": "i8mm", "bf16": "bf16",
    },
    "armv7l": {"neon": "neon", "vfp4": "vfpv4", "hwdiv-arm": "idiva"},
}  # fmt: skip


def required_features(target: Target) -> tuple[str, ...]:
    """Return what a processor must have to run code for a target, as `/proc/cpuinfo` says it.

    For `host` it is what both LLVM's processor and this machine have: a virtual machine may
    hide something.
    """
    from pockc.backends.tvm.target_string import llvm_features

    has = llvm_features(target.triple, target.mcpu, target.features)
    needed = (there for ours, there in _REPORTED[target.arch].items() if ours in has)
    if target.name != "host":
        return tuple(needed)
    present = cpu_features()
    return tuple(n for n in needed if n in present)


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
