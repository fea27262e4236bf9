"""Profiles of training steps: what the runtime recorded, joined with the artifact's plan."""

from pockc.profile.join import joined
from pockc.profile.model import (
    Kernel,
    Machine,
    PlannedMemory,
    Profile,
    Span,
    lower_quartile,
    read_profile,
    write_profile,
)
from pockc.profile.recording import Recording, read_recording

__all__ = [
    "Kernel",
    "Machine",
    "PlannedMemory",
    "Profile",
    "Recording",
    "Span",
    "joined",
    "lower_quartile",
    "read_profile",
    "read_recording",
    "write_profile",
]
