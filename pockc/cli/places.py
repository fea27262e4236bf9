"""Checks where results go before anything long runs."""

from __future__ import annotations

from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.runtime.opening import read_manifest


def check_artifact_target(path: Path) -> None:
    """Check that an artifact can be written: over an artifact, or where nothing is.

    Raises:
        UserError: [foreign-folder] There is something else; [no-folder].
    """
    if path.exists():
        read_manifest(path)  # anything but an artifact is not replaced
    check_file_target(path)


def check_file_target(path: Path) -> None:
    """Check that the folder of a file is there.

    Raises:
        UserError: [no-folder] It is not.
    """
    if not path.absolute().parent.is_dir():
        what = f"there is no folder {path.parent} to write {path.name} to"
        raise UserError(Problem("no-folder", what, fix=f"mkdir -p {path.parent}"))


def check_source(path: Path) -> None:
    """Check that data is there.

    Raises:
        UserError: [data-file] It is not.
    """
    if not path.exists():
        what = f"there is no file {path}"
        raise UserError(Problem("data-file", what, fix="check the path"))
