"""What native code needs of the machine that runs it."""

from __future__ import annotations

from collections.abc import Sequence

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
