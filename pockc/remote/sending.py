"""Sends an artifact: only what changed, verified there, in place at once.

Files arrive beside their place and are renamed when all of them are there and right. An
interrupted deployment leaves what was there as it was, and the next one goes on where it ended.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.remote.place import Place
from pockc.remote.ssh import Connection
from pockc.runtime.manifest import MANIFEST_FILE, STATE_FILE, Manifest
from pockc.runtime.opening import check_files, read_manifest, sha256_of

Progress = Callable[[str, int, int], None]
"""Called as `progress(file, bytes sent, bytes in all)`."""

_INCOMING = ".incoming"
_SENT = ".deployed"  # the hashes of the last deployment, to tell what was changed there since


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deployment did.

    Attributes:
        path: The artifact there.
        sent: Files that were sent, in order.
        sent_bytes: How much that was.
        kept: Files that were there already.
        verified: Whether the machine computed the hashes; without `sha256sum` the runtime does
            it when it opens the artifact.
    """

    path: str
    sent: tuple[str, ...]
    sent_bytes: int
    kept: tuple[str, ...]
    verified: bool


@dataclass(frozen=True, slots=True)
class _There:
    """What the machine has: hashes by file, and whether it can compute them."""

    arch: str
    hashes: Mapping[str, str]
    deployed: Mapping[str, str]
    can_hash: bool


def deploy(
    folder: Path,
    connection: Connection,
    place: Place,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> Deployed:
    """Make the machine's copy of an artifact equal to `folder`.

    Args:
        folder: The artifact here.
        connection: To the machine.
        place: Where it goes: into the place's folder, under its own name.
        progress: Told about the bytes.
        overwrite: Replace weights that were trained there.

    Raises:
        UserError: [deploy-target] The machine is of another kind; [trained-there] its copy has
            been trained; [deploy-damaged] what arrived is not what was sent; or what the
            connection raises.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    here = {n: f.sha256 for n, f in sorted(manifest.files.items())}
    here[MANIFEST_FILE] = sha256_of(folder / MANIFEST_FILE)
    names = list(here)
    path = place.artifact(folder)
    there = _look(connection, path, names)
    _check_arch(manifest, there, place)
    if not overwrite:
        _check_untrained(there, here, path)
    changed = [n for n in names if there.hashes.get(n) != here[n]]
    arrived = [n for n in changed if there.hashes.get(n + _INCOMING) == here[n]]
    missing = [n for n in changed if n not in arrived]
    sizes = {n: (folder / n).stat().st_size for n in missing}
    _send(connection, {folder / n: f"{path}/{n}{_INCOMING}" for n in missing}, progress)
    executable = [n for n in names if (folder / n).stat().st_mode & 0o100]
    if there.can_hash:
        wanted = {n + _INCOMING: here[n] for n in changed}
        _verify(connection, path, wanted)
    _put_in_place(connection, path, changed, executable, here)
    if there.can_hash:
        _verify(connection, path, here)
    kept = tuple(n for n in names if n not in changed)
    return Deployed(path, tuple(missing), sum(sizes.values()), kept, there.can_hash)


def send_files(
    connection: Connection, place: Place, given: Sequence[Path], progress: Progress
) -> dict[Path, str]:
    """Send data that the machine does not have; return where it is there.

    Args:
        connection: To the machine.
        place: Its folder `data` gets them.
        given: Files, or folders of files.
        progress: Told about the bytes.

    Raises:
        UserError: [data-file] Two have one name; [deploy-damaged]; or what the connection
            raises.
    """
    paths = {g: place.path(f"data/{g.name}") for g in dict.fromkeys(given)}
    if len(set(paths.values())) != len(paths):
        what = f"two of these have the same name: {', '.join(map(str, paths))}"
        raise UserError(Problem("data-file", what, fix="rename one of them"))
    groups = {place.path("data"): [g for g in paths if not g.is_dir()]}
    for folder in (g for g in paths if g.is_dir()):
        groups[paths[folder]] = sorted(f for f in folder.iterdir() if f.is_file())
    for path, files in groups.items():
        _send_missing(connection, path, files, progress)
    return paths


def _send_missing(
    connection: Connection, path: str, files: Sequence[Path], progress: Progress
) -> None:
    there = _look(connection, path, [f.name for f in files])
    here = {f.name: sha256_of(f) for f in files}
    changed = [f for f in files if there.hashes.get(f.name) != here[f.name]]
    _send(connection, {f: f"{path}/{f.name}{_INCOMING}" for f in changed}, progress)
    if there.can_hash:
        _verify(connection, path, {f.name + _INCOMING: here[f.name] for f in changed})
    _put_in_place(connection, path, [f.name for f in changed], [], None)


def _look(connection: Connection, path: str, names: Sequence[str]) -> _There:
    every = " ".join(shlex.quote(n + end) for n in names for end in ("", _INCOMING))
    text = connection.run(
        f"mkdir -p {shlex.quote(path)} && cd {shlex.quote(path)} && uname -m || exit 1\n"
        "if command -v sha256sum >/dev/null 2>&1; then echo yes\n"
        f'for f in {every}; do test -f "$f" && sha256sum "$f"; done\n'
        "else echo no; fi\n"
        f"echo; test -f {_SENT} && cat {_SENT}; true"
    )
    head, _, deployed = text.partition("\n\n")
    arch, can_hash, *lines = head.splitlines()
    return _There(arch, _hashes(lines), _hashes(deployed.splitlines()), can_hash == "yes")


def _hashes(lines: Sequence[str]) -> dict[str, str]:
    """Read what `sha256sum` writes."""
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.lstrip("*"): digest for digest, name in pairs}


def _check_arch(manifest: Manifest, there: _There, place: Place) -> None:
    machine = manifest.machine
    # A 64-bit system of Arm runs 32-bit programs if their libraries are there.
    runs = {machine.arch} | ({"armv8l", "aarch64"} if machine.arch == "armv7l" else set())
    if there.arch not in runs:
        what = (
            f"the artifact was compiled for target '{machine.target}' ({machine.arch}), "
            f"{place.destination} is {there.arch}"
        )
        fix = "compile the model for that machine: --target"
        raise UserError(Problem("deploy-target", what, fix=fix))


def _check_untrained(there: _There, here: Mapping[str, str], path: str) -> None:
    state = there.hashes.get(STATE_FILE)
    if state in (None, here[STATE_FILE], there.deployed.get(STATE_FILE)):
        return
    what = f"the weights in {path} are not those that were deployed: they were trained there"
    fix = "give --overwrite to lose them, or deploy to another folder"
    raise UserError(Problem("trained-there", what, fix=fix))


def _send(connection: Connection, files: Mapping[Path, str], progress: Progress) -> None:
    total, done = sum(f.stat().st_size for f in files), 0
    for source, target in files.items():

        def sent(count: int, name: str = source.name) -> None:
            nonlocal done
            done += count
            progress(name, done, total)

        connection.send(source, target, sent)


def _verify(connection: Connection, path: str, wanted: Mapping[str, str]) -> None:
    if not wanted:
        return
    names = " ".join(map(shlex.quote, wanted))
    found = _hashes(connection.run(f"cd {shlex.quote(path)} && sha256sum {names}").splitlines())
    problems = [
        Problem(
            "deploy-damaged",
            f"{path}/{name} has SHA-256 {found.get(name)}, {digest} was sent",
            fix="deploy again; if it happens again, check the machine's disk and memory",
        )
        for name, digest in wanted.items()
        if found.get(name) != digest
    ]
    if problems:
        raise UserError(*problems)


def _put_in_place(
    connection: Connection,
    path: str,
    changed: Sequence[str],
    executable: Sequence[str],
    record: Mapping[str, str] | None,
) -> None:
    """Rename what arrived; the manifest is the last, and what it tells of is there by then."""
    lines = [f"cd {shlex.quote(path)} || exit 1"]
    if changed:
        lines.append("sync")  # a power cut must not leave a name without its content
    for name in changed:
        mode = "755" if name in executable else "644"
        quoted, incoming = shlex.quote(name), shlex.quote(name + _INCOMING)
        lines.append(f"chmod {mode} {incoming} && mv -f {incoming} {quoted} || exit 1")
    if record is not None and changed:
        lines.append(_recording(record))
    connection.run("\n".join(lines))


def record_hashes(connection: Connection, path: str, hashes: Mapping[str, str]) -> None:
    """Note that an artifact there is the one here: training it further loses nothing."""
    connection.run(f"cd {shlex.quote(path)} || exit 1\n{_recording(hashes)}")


def _recording(hashes: Mapping[str, str]) -> str:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return f"printf %s {shlex.quote(text)} > {_SENT} || exit 1"
