"""From a plan and kernel objects to `step.so`: kernels, tables and the runtime in one library.

Because the runtime is part of the library, the tables can never disagree with it. The library
exports `pk_*` and nothing else, so that several artifacts live in one process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pockc.runtime
from pockc.backends.native.tables import table_source
from pockc.backends.native.zig import cache_folder, run_zig
from pockc.plan.types import Plan

# Warnings are the tests' business (tests/runtime): a newer compiler's must not stop a user.
# Zig would add checks that trap; sanitizers have their own build, in tests/runtime.
_COMPILE = (
    "-std=c11",
    "-D_POSIX_C_SOURCE=200809L",
    "-D_FILE_OFFSET_BITS=64",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-g0",
)
_LINK = (
    "-shared",
    "-s",
    "-Wl,--version-script=exports.map",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-z,defs",
)
_EXPORTS = "{ global: pk_*; local: *; };\n"


# The oldest libc that zig has for every target, and older than that of any board in use: a
# Jetson Nano has 2.27.
_GLIBC = "2.17"


@dataclass(frozen=True, slots=True)
class NativeTarget:
    """What the linker must know of the machine.

    Attributes:
        triple: Zig's name of the platform, as `aarch64-linux-gnu.2.17`.
    """

    triple: str

    @classmethod
    def of_llvm(cls, triple: str, *, static: bool = False) -> NativeTarget:
        """Return the target of an LLVM triple.

        Args:
            triple: As `aarch64-linux-gnu`.
            static: For a program that contains its libc, which is musl's.
        """
        arch, _, system = triple.partition("-")
        abi = "eabihf" if system.endswith("eabihf") else ""
        libc = f"musl{abi}" if static or "musl" in system else f"gnu{abi}.{_GLIBC}"
        return cls(f"{'arm' if arch.startswith('armv7') else arch}-linux-{libc}")


HOST = NativeTarget.of_llvm(f"{os.uname().machine}-linux-gnu")


def link(
    plan: Plan,
    objects: Mapping[str, bytes],
    out: Path,
    target: NativeTarget = HOST,
    micro_batches: int = 1,
) -> None:
    """Write the library of an artifact. Equal input gives equal bytes.

    Args:
        plan: The places and steps; becomes constant tables.
        objects: Object files that define the plan's kernels, by a name each.
        out: Where the library goes.
        target: The machine that it is for.
        micro_batches: How many calls of `train_step` make one update.

    Raises:
        UserError: [no-zig] The linker is not installed.
        InternalError: [zig-failed] It failed, as on a kernel that no object defines.
    """
    runtime = _runtime_objects(target)
    with tempfile.TemporaryDirectory(prefix="pockc-link-") as name:
        folder = Path(name)
        (folder / "exports.map").write_text(_EXPORTS, encoding="utf-8")
        program = write_program(folder, plan, objects, target, micro_batches)
        inputs = (*(str(o) for o in runtime), program, "-lm", "-lpthread")
        run_zig(("cc", "-target", target.triple, *_LINK, *inputs, "-o", "step.so"), folder)
        out.write_bytes((folder / "step.so").read_bytes())


def write_program(
    folder: Path,
    plan: Plan,
    objects: Mapping[str, bytes],
    target: NativeTarget,
    micro_batches: int,
) -> str:
    """Write a plan's tables and kernels to a folder as objects; return a linker's input."""
    (folder / "plan.c").write_text(table_source(plan, micro_batches), encoding="utf-8")
    include = ("-I", str(_runtime_folder() / "include"))
    compiled = ("-c", "-O1", *_COMPILE, *include, "plan.c", "-o", "plan.o")
    run_zig(("cc", "-target", target.triple, *compiled), folder)
    files = [f"k{i}.o" for i, _ in enumerate(sorted(objects))]
    for file, key in zip(files, sorted(objects), strict=True):
        (folder / file).write_bytes(objects[key])
    # A response file: thousands of kernels are too many for a command line.
    (folder / "files").write_text("\n".join(["plan.o", *files]), encoding="utf-8")
    return "@files"


def _runtime_folder() -> Path:
    return Path(str(pockc.runtime.__file__)).resolve().parent


@lru_cache(maxsize=8)
def _runtime_objects(target: NativeTarget) -> tuple[Path, ...]:
    """Return the compiled runtime, from the cache if it was compiled before."""
    source = _runtime_folder()
    files = sorted((source / "src").glob("*.c"))
    headers = sorted((source / "src").glob("*.h")) + sorted((source / "include").glob("*.h"))
    flags = ("-O2", *_COMPILE)
    key = hashlib.sha256(f"{target.triple} {flags}".encode())
    for file in files + headers:
        key.update(file.name.encode() + file.read_bytes())
    kept = cache_folder() / "runtime" / key.hexdigest()[:32]
    objects = tuple(kept / f"{f.stem}.o" for f in files)
    if not all(o.exists() for o in objects):
        _compile_runtime(files, source / "include", target, flags, kept)
    return objects


def _compile_runtime(
    files: list[Path], include: Path, target: NativeTarget, flags: tuple[str, ...], kept: Path
) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as name:
        folder = Path(name)
        for file in files:
            output = f"{file.stem}.o"
            args = ("-c", *flags, "-I", str(include), str(file), "-o", output)
            run_zig(("cc", "-target", target.triple, *args), folder)
            # Renamed, so that a second process never links half an object.
            (folder / output).replace(kept / output)
