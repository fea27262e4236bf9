"""What native code needs of the machine that runs it."""

from __future__ import annotations

from collections.abc import Mapping

from pockc.runtime.manifest import Machine
from pockc.runtime.opening import cpu_features

# What generated code may use, of all that processors report.
_X86_FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "bmi2",
    "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16",
)  # fmt: skip
_X86_LEVELS = {"x86-64-v2": 1, "x86-64-v3": 6, "x86-64-v4": 11}

# Beyond what every 64-bit Arm processor has.
_ARM_FEATURES: Mapping[str, tuple[str, ...]] = {
    "carmel": ("atomics", "asimdhp"),
    "cortex-a76": ("atomics", "asimdhp", "asimddp"),
    "cortex-a78": ("atomics", "asimdhp", "asimddp"),
}


def machine_for(target: str, triple: str, cpu: str) -> Machine:
    """Return what code for a target needs of the machine that runs it.

    Args:
        target: The name by which the target was chosen; `host` needs what this machine has.
        triple: LLVM's triple.
        cpu: LLVM's name of the processor.
    """
    arch = triple.partition("-")[0]
    features: tuple[str, ...] = ()
    if target == "host" and arch == "x86_64":
        features = tuple(f for f in _X86_FEATURES if f in cpu_features())
    elif cpu in _X86_LEVELS:
        features = _X86_FEATURES[: _X86_LEVELS[cpu]]
    else:
        features = _ARM_FEATURES.get(cpu, ())
    return Machine(target, arch, "linux", features, triple, cpu)
