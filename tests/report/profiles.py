"""Profiles of compiled artifacts for tests of reports, recorded on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pockc.profile import Profile, joined, read_recording


def recorded(folder: Path, file: Path) -> Path:
    """Record some steps of an artifact by its own `pock-run`; return the file."""
    words = ["bench", folder, "--threads", "1", "--profile", file]
    subprocess.run([folder / "pock-run", *words], check=True, stdout=subprocess.DEVNULL)
    return file


def measured(folder: Path) -> Profile:
    """Return the profile of an artifact."""
    file = recorded(folder, folder.with_suffix(".recording.json"))
    return joined(read_recording(file), folder)
