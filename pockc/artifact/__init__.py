"""The artifact's folder: written here, read by the runtime (`pockc.runtime`)."""

from __future__ import annotations

from pockc.artifact.details import MEMORY, read_details, stage_name, stages_of
from pockc.artifact.write import Contents, write_artifact
from pockc.runtime.manifest import FORMAT_VERSION, Machine, Manifest, ValueRange
from pockc.runtime.opening import check_files, read_manifest

__all__ = [
    "FORMAT_VERSION",
    "MEMORY",
    "Contents",
    "Machine",
    "Manifest",
    "ValueRange",
    "check_files",
    "read_details",
    "read_manifest",
    "stage_name",
    "stages_of",
    "write_artifact",
]
