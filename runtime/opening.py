"""Opening an artifact's folder: is it one, of this version, for this machine, undamaged?

Everything is checked before any of it is used.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.runtime.manifest import (
    ANY,
    FORMAT,
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    Machine,
    Manifest,
    parse_manifest,
)

_CHUNK_BYTES = 1 << 16


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an artifact. The other files are not looked at.

    Raises:
        UserError: [no-artifact] There is nothing; [foreign-folder] it is something else;
            [artifact-version] of another version; [damaged-file] unreadable.
    """
    path = folder / MANIFEST_FILE
    if not folder.exists():
        raise UserError(Problem("no-artifact", f"there is no {folder}", fix=_COMPILE))
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        what = f"{folder} is no artifact: it has no {MANIFEST_FILE}"
        raise UserError(Problem("foreign-folder", what, fix=_COMPILE)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(_damaged(path, str(error))) from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(_damaged(path, str(error))) from error
    _check_format(folder, data)
    try:
        return parse_manifest(text)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(_damaged(path, str(error))) from error


_COMPILE = "give a folder that `pockc compile` or `artifact.save` wrote"


def _check_format(folder: Path, data: object) -> None:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        what = f"{folder} is no artifact: its {MANIFEST_FILE} is another program's"
        raise UserError(Problem("foreign-folder", what, fix=_COMPILE))
    version = data.get("format_version")
    if version == FORMAT_VERSION:
        return
    newer = isinstance(version, int) and version > FORMAT_VERSION
    raise UserError(
        Problem(
            "artifact-version",
            f"{folder} has format version {version}, this pockc reads version {FORMAT_VERSION}",
            fix="install a newer pockc" if newer else "compile the model again",
        )
    )


def check_replaceable(folder: Path) -> None:
    """Check that what is there, if anything, is an artifact, of whatever version or state.

    Raises:
        UserError: [foreign-folder] It is something else, and is not overwritten.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_manifest(folder)
    except UserError as error:
        if error.problems[0].slug == "foreign-folder":
            raise


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file of an artifact is there and has the content it was written with.

    Raises:
        UserError: [missing-file] or [damaged-file] for each that is not.
    """
    problems = tuple(_file_problems(folder, manifest))
    if problems:
        raise UserError(*problems)


def _file_problems(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    for name, expected in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            what = f"{folder} lacks its file {name}"
            yield Problem("missing-file", what, fix="copy the whole folder again")
            continue
        nbytes = path.stat().st_size
        if nbytes != expected.nbytes:
            yield _damaged(path, f"it has {nbytes} bytes, {expected.nbytes} were written")
        elif sha256_of(path) != expected.sha256:
            yield _damaged(path, "its SHA-256 is not the one in the manifest")


def _damaged(path: Path, why: str) -> Problem:
    fix = "copy the folder again, or compile the model again"
    return Problem("damaged-file", f"{path} is damaged: {why}", fix=fix)


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def check_machine(folder: Path, machine: Machine) -> None:
    """Check that this machine can run the artifact's code.

    Raises:
        UserError: [artifact-target] It is for another processor or system.
    """
    arch, system = instruction_set(), sys.platform
    made_for = f"{folder} was compiled for target '{machine.target}'"
    fix = "compile the model for this machine: --target"
    wrong = machine.arch not in (arch, ANY) or machine.system not in (system, ANY)
    if wrong:
        what = f"{made_for} ({machine.arch}, {machine.system}), this is {arch}, {system}"
        raise UserError(Problem("artifact-target", what, fix=fix))
    present = cpu_features()
    lacking = [f for f in machine.features if f not in present]
    if present and lacking:
        what = f"{made_for}, whose code needs what this processor lacks: {', '.join(lacking)}"
        raise UserError(Problem("artifact-target", what, fix=fix))


def instruction_set() -> str:
    """Return what this process runs: a 64-bit Arm system also runs 32-bit programs."""
    machine = os.uname().machine
    is_arm32 = machine in ("armv7l", "armv8l", "aarch64") and sys.maxsize < 1 << 32
    return "armv7l" if is_arm32 else machine


def cpu_features() -> frozenset[str]:
    """Return what the first processor can do, as the system names it; empty if unknown."""
    return frozenset(_cpu_fact("flags", "Features").split())


def cpu_name() -> str:
    """Return the processor's name, as `pock-run` records it; "" if unknown."""
    return _cpu_fact("model name", "Model", "Hardware")


def _cpu_fact(*keys: str) -> str:
    """Return the first of some fields of `/proc/cpuinfo`, "" if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def read_graph_text(folder: Path) -> str:
    """Return the text of an artifact's graphs.

    Raises:
        UserError: [damaged-file] It cannot be read.
    """
    try:
        return lzma.decompress((folder / GRAPH_FILE).read_bytes()).decode()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        what = f"{folder / GRAPH_FILE} cannot be read: {error}"
        fix = "copy the artifact again, or compile the model again"
        raise UserError(Problem("damaged-file", what, fix=fix)) from error
