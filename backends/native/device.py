"""The device's part of the runtime: `libpock.so` and the command `pock-run`, for a target.

Both are built once for a target and kept; every artifact gets a copy, so that its folder is all
that a bare board needs. A static artifact has instead one program with the model's code in it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pockc.runtime
from pockc.backends.native.link import HOST, NativeTarget, write_program
from pockc.backends.native.zig import cache_folder, run_zig
from pockc.plan.types import Plan

LIBRARY = "libpock.so"
COMMAND = "pock-run"
HEADERS = ("pock.h", "pock_core.h")

_COMPILE = (
    "-std=c11",
    "-D_POSIX_C_SOURCE=200809L",
    "-D_FILE_OFFSET_BITS=64",  # 32-bit boards have large files too
    "-Os",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-g0",
)
_LINK = ("-s", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,defs")
_EXPORTS = "{ global: pock_*; local: *; };\n"


def runtime_folder() -> Path:
    """Return the folder of the runtime's sources."""
    return Path(str(pockc.runtime.__file__)).resolve().parent


def library_sources() -> list[Path]:
    """Return the sources of `libpock`. A static build adds `src` and the plan's tables."""
    source = runtime_folder()
    return [*_sources("device"), source / "src" / "status.c"]


def command_sources() -> list[Path]:
    """Return the sources of `pock-run`, without those of the library."""
    return _sources("cli")


def include_flags() -> tuple[str, ...]:
    """Return where the headers are."""
    source = runtime_folder()
    return tuple(
        part for f in ("include", "src", "device", "cli") for part in ("-I", str(source / f))
    )


def build_device(folder: Path, target: NativeTarget = HOST) -> tuple[Path, Path]:
    """Write `libpock.so` and `pock-run` to a folder; return their paths.

    The command finds the library beside itself.

    Raises:
        UserError: [no-zig] The compiler is not installed.
        InternalError: [zig-failed] It failed.
    """
    kept = cache_folder() / "device" / _key(target)
    if not (kept / COMMAND).exists():
        _build(kept, target)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LIBRARY, COMMAND):
        shutil.copy(kept / name, folder / name)
    return folder / LIBRARY, folder / COMMAND


def copy_headers(folder: Path) -> tuple[Path, ...]:
    """Copy the headers of `libpock` to a folder; return their paths."""
    include = runtime_folder() / "include"
    return tuple(Path(shutil.copy(include / h, folder / h)) for h in HEADERS)


def link_static(
    plan: Plan,
    objects: Mapping[str, bytes],
    step_hash: str,
    out: Path,
    target: NativeTarget,
    micro_batches: int = 1,
) -> None:
    """Write `pock-run` as one static program that holds the kernels and the plan.

    Args:
        plan: As for `link`; so are `objects` and `micro_batches`.
        objects: See there.
        step_hash: SHA-256 of the artifact's `step.so`, by which the program knows its artifact.
        out: Where the program goes.
        target: A platform whose libc can be linked statically: `of_llvm(..., static=True)`.
        micro_batches: See there.

    Raises:
        UserError: [no-zig] The linker is not installed.
        InternalError: [zig-failed] It failed.
    """
    runtime = _static_runtime(target)
    with tempfile.TemporaryDirectory(prefix="pockc-link-") as name:
        folder = Path(name)
        identity = f'const char pock_static_step_hash[] = "{step_hash}";\n'
        (folder / "identity.c").write_text(identity, encoding="utf-8")
        program = write_program(folder, plan, objects, target, micro_batches)
        common = ("cc", "-target", target.triple, *_COMPILE, *_LINK, "-static")
        inputs = ("identity.c", program, str(runtime), "-lm", "-lpthread", "-o", COMMAND)
        run_zig((*common, *inputs), folder)
        shutil.copy(folder / COMMAND, out)


def _static_runtime(target: NativeTarget) -> Path:
    """Return one object of all parts of the runtime, from the cache if it is there."""
    kept = cache_folder() / "device" / _key(target)
    made = kept / "static.o"
    if not made.exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as name:
            folder = Path(name)
            sources = map(str, (*library_sources(), *command_sources(), *_core_sources()))
            common = ("cc", "-target", target.triple, *_COMPILE, *include_flags())
            run_zig((*common, "-DPOCK_STATIC", "-r", *sources, "-o", "static.o"), folder)
            (folder / "static.o").replace(made)
    return made


def _core_sources() -> list[Path]:
    """Return what is in `step.so` besides the plan, and not in the library."""
    return [f for f in _sources("src") if f not in library_sources()]


def _sources(part: str) -> list[Path]:
    return sorted((runtime_folder() / part).glob("*.c"))


def _key(target: NativeTarget) -> str:
    source = runtime_folder()
    key = hashlib.sha256(f"{target.triple} {_COMPILE} {_LINK}".encode())
    headers = [f for d in ("include", "src", "device", "cli") for f in (source / d).glob("*.h")]
    for file in [*library_sources(), *command_sources(), *_core_sources(), *sorted(headers)]:
        key.update(file.name.encode() + file.read_bytes())
    return key.hexdigest()[:32]


def _build(kept: Path, target: NativeTarget) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=kept) as name:
        folder = Path(name)
        (folder / "exports.map").write_text(_EXPORTS, encoding="utf-8")
        common = ("cc", "-target", target.triple, *_COMPILE, *include_flags(), *_LINK)
        library = ("-shared", f"-Wl,-soname,{LIBRARY}", "-Wl,--version-script=exports.map")
        sources = [str(f) for f in library_sources()]
        run_zig((*common, *library, *sources, "-ldl", "-lm", "-o", LIBRARY), folder)
        sources = [str(f) for f in command_sources()]
        where = ("-Wl,-rpath,$ORIGIN", LIBRARY, "-lm", "-lpthread", "-o", COMMAND)
        run_zig((*common, *sources, *where), folder)
        # Renamed, the command last: a second process never takes half of it.
        for file in (LIBRARY, COMMAND):
            (folder / file).replace(kept / file)
