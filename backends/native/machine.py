"""What native code needs of the machine that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from pockc.plan.runtime_memory import Host
from pockc.runtime.manifest import Machine


def machine_for(target: str, triple: str, cpu: str, features: Sequence[str] = ()) -> Machine:
    """Return what code for a target needs of the machine that runs it.

    Args:
        target: The name by which the target was chosen.
        triple: LLVM's triple.
        cpu: LLVM's name of the processor.
        features: What the processor must have, in the spelling of `/proc/cpuinfo`.
    """
    arch = triple.partition("-")[0]
    return Machine(target, arch, "linux", tuple(features), triple, cpu)


def host_for(triple: str, threads: int) -> Host:
    """Return what the memory of the runtime depends on.

    64-bit Arm systems have pages of 4 KiB or, as that of a Raspberry Pi 5, of 16: of an upper
    bound the larger ones. (Some servers have pages of 64 KiB; they are no devices.)
    """
    arm = triple.partition("-")[0] == "aarch64"
    return Host(threads, 16384 if arm else 4096)
