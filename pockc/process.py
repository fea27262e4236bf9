"""What the process itself takes, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident_bytes() -> int | None:
    """Return the resident memory of this process, None where the system does not tell."""
    return _field("VmRSS")


def peak_bytes() -> int | None:
    """Return the most resident memory since `forget_peak`, None where it is not told."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Begin a new measurement of the peak, where the system allows it."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return


def _field(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None
