"""The artifact's folder: written here, read by the runtime (`pockc.runtime`)."""

from __future__ import annotations

from pockc.artifact.write import Contents, write_artifact
from pockc.runtime.manifest import FORMAT_VERSION, Machine, Manifest, ValueRange
from pockc.runtime.opening import check_files, read_manifest

__all__ = [
    "FORMAT_VERSION",
    "Contents",
    "Machine",
    "Manifest",
    "ValueRange",
    "check_files",
    "read_manifest",
    "write_artifact",
]
