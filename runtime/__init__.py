"""Runs artifacts: train, evaluate, predict. Needs numpy and nothing else.

The work is done by the C library inside the artifact; `include/pock_core.h` is its interface,
and README.md tells how memory is laid out and in which order things are called.
"""

from __future__ import annotations

from pockc.runtime.artifact import Artifact, load
from pockc.runtime.manifest import Manifest
from pockc.runtime.opening import read_manifest
from pockc.runtime.training import EpochReport, History, StepReport, TrainOptions

__all__ = [
    "Artifact",
    "EpochReport",
    "History",
    "Manifest",
    "StepReport",
    "TrainOptions",
    "load",
    "read_manifest",
]
