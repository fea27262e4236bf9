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


_HEADERS = "libonnxruntime-dev"
_RELEASE = "trixie"
"""Debian's first release that has the package, 1.21; its headers fit newer libraries."""


def onnxruntime_headers() -> Path:
    """Return the folder of ONNX Runtime's C and C++ headers, from Debian 13's package.

    Nothing is installed: apt works in a folder of its own, with the system's mirror. Skips the
    test where that cannot be. POCKC_ONNXRUNTIME_HEADERS may name a folder that has them.
    """
    given = os.environ.get("POCKC_ONNXRUNTIME_HEADERS")
    if given:
        return Path(given)
    folder = ROOT / ".venv-headers"
    if not (folder / "complete").exists():
        try:
            _fetch_headers(folder)
        except (subprocess.SubprocessError, OSError, IndexError) as error:
            pytest.skip(f"{_HEADERS} cannot be had: {error}")
        (folder / "complete").touch()
    return folder / "usr" / "include" / "onnxruntime"


def _fetch_headers(folder: Path) -> None:
    def run(*words: str) -> str:
        return subprocess.run(
            words, check=True, timeout=120, capture_output=True, cwd=folder, text=True
        ).stdout

    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    known = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian")
    source = f"deb {known.split()[0]} {_RELEASE} main\n"
    (folder / "sources.list").write_text(source)
    own = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", *(w for key, value in own.items() for w in ("-o", f"{key}={value}"))]
    run(*apt, "update")
    run(*apt, "download", _HEADERS)
    run("sh", "-c", f"dpkg-deb -x {_HEADERS}_*.deb .")
