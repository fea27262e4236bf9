"""Programs of the system that some tests need; `.ci/run` installs them."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "chromium": "chromium",
    "ld-linux-aarch64.so.1": "libc6-arm64-cross",
    "qemu-aarch64": "qemu-user",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-arm-static": "qemu-user-static",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
}
"""The package of Debian that has a program."""


def need_program(name: str) -> str:
    """Return a program's path; skip the test without it, but fail if it was to be there."""
    path = os.environ.get("PATH", "")
    found = shutil.which(name, path=f"{path}:/usr/sbin:/usr/aarch64-linux-gnu/lib")
    if found is not None:
        return found
    package = PACKAGES[name]
    if package in os.environ.get("POCKC_INSTALLED", "").split():
        pytest.fail(f"there is no {name}, although {package} is installed")
    pytest.skip(f"there is no {name}: apt-get install {package}")
