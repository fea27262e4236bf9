"""Environments of their own, for packages that cannot lie beside those of the project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def environment(name: str, *packages: str) -> Path:
    """Return the Python of an environment with some packages, made if there is none.

    Skips the test if they cannot be installed. The variable POCKC_<NAME>, with underscores
    for hyphens, may name the Python of an environment that exists already.

    Args:
        name: What it is for; its folder is `.venv-<name>`.
        packages: What pip installs.
    """
    given = os.environ.get(f"POCKC_{name.replace('-', '_').upper()}")
    if given:
        return Path(given)
    folder = ROOT / f".venv-{name}"
    found = folder / "bin" / "python"
    if not (folder / "complete").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=60)
            command = [str(found), "-m", "pip", "install", "-q", *packages]
            subprocess.run(command, check=True, timeout=400, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"{packages[0]} cannot be installed: {error}")
        (folder / "complete").touch()
    return found
