"""Writing so that a power cut, a full disk or a kill leaves the old content or the new one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pockc.errors import Problem, UserError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def replaced_file(path: Path, keep_previous: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write that becomes `path` when the block ends without an error.

    The file that is written has a fixed name beside `path`: what a killed process leaves behind
    is overwritten by the next one and does not pile up.

    Args:
        path: What is replaced.
        keep_previous: Leave the old content as `<path>.previous`.

    Raises:
        UserError: [write-failed] The system refused, as on a full disk; `path` is as before.
            [write-busy] Another process is writing it.
    """
    path = path.resolve()
    temporary = _temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(temporary, os.O_RDWR | os.O_CREAT, path)
    except OSError as error:
        raise write_failed(path, error) from error
    complete = False
    try:
        # Closing writes what is left in the buffer, and may fail as any write.
        with os.fdopen(handle, "r+b") as file:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(handle)
            if keep_previous and path.exists():
                keep_as_previous(path)
            temporary.replace(path)
            complete = True
            sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        if not complete:
            temporary.unlink(missing_ok=True)


def _temporary_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _locked(path: Path, flags: int, target: Path) -> int:
    """Open a file or folder and lock it.

    Raises:
        UserError: [write-busy] Another process has the lock.
    """
    while True:
        handle = os.open(path, flags | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other process may have renamed what was opened before it let go of the lock.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
            os.close(handle)
        except BlockingIOError:
            os.close(handle)
            what = f"another process is writing {target}"
            fix = "wait for it, or choose another place"
            raise UserError(Problem("write-busy", what, fix=fix)) from None


def previous_of(path: Path) -> Path:
    """Return where the content before the last is kept."""
    return path.with_name(path.name + ".previous")


def keep_as_previous(path: Path) -> None:
    """Give the content a second name, so that there is no moment without `path`."""
    previous = previous_of(path)
    link = previous.with_name(previous.name + ".new")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links, as on many memory cards
        shutil.copy2(path, link)
    link.replace(previous)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends without an error.

    Raises:
        UserError: [write-failed] The system refused, as on a full disk; `path` is as before.
            [write-busy] Another process is writing it.
    """
    path = path.resolve()  # a link stays a link; what it points to is replaced
    temporary = _temporary_of(path)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        handle = _locked(temporary, os.O_RDONLY | os.O_DIRECTORY, path)
    except OSError as error:
        raise write_failed(path, error) from error
    try:
        _empty(temporary)
        yield temporary
        for file in sorted(temporary.iterdir()):
            sync_file(file)
        sync_folder(temporary)
        if path.exists():
            _exchange(temporary, path)
        else:
            temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _empty(folder: Path) -> None:
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders; where the system cannot do that at once, by two renames."""
    library = ctypes.CDLL(None, use_errno=True)
    swap = getattr(library, "renameat2", None)
    if swap is not None:
        names = (os.fsencode(new), os.fsencode(old))
        if swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    aside = previous_of(old)
    shutil.rmtree(aside, ignore_errors=True)
    old.replace(aside)
    new.replace(old)
    shutil.rmtree(aside, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems of memory cards cannot; their renames are written in order.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_failed(path: Path, error: OSError) -> UserError:
    """Return the error for a write that the system refused."""
    why = error.strerror or str(error)
    return UserError(
        Problem(
            "write-failed",
            f"cannot write {path}: {why}; what was there before is untouched",
            fix="free some space, or choose another place",
        )
    )
