"""An artifact as pictures see it: what lies in its folder, read without running anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pockc.artifact import MEMORY, Manifest, read_details, read_manifest, stages_of
from pockc.errors import Problem, UserError
from pockc.plan import EntryOccupancy, Occupancy, read_occupancy

STEP = "train_step"


@dataclass(frozen=True)
class Subject:
    """An artifact to draw.

    Attributes:
        name: The folder's name without its suffix.
        path: The folder.
        manifest: What is known about it.
        memory: Its plan; None if its backend plans nothing.
        stages: The text of the training step's graph after each pass, by name.
    """

    name: str
    path: Path
    manifest: Manifest
    memory: Occupancy | None
    stages: Mapping[str, str]

    def sizes(self) -> dict[str, int]:
        """Return the number of elements of each parameter."""
        tensors = self.manifest.tensors.items()
        return {n: math.prod(t.shape) for n, t in tensors if t.kind == "param"}

    def planned_bytes(self) -> int:
        """Return the private bytes of a training step: state and arena."""
        memory, step = self.planned()
        return memory.state.nbytes + step.arena_bytes

    def planned(self) -> tuple[Occupancy, EntryOccupancy]:
        """Return the plan and its training step.

        Raises:
            UserError: [no-plan] The artifact's backend leaves memory to another runtime.
        """
        step = None if self.memory is None else self.memory.entry(STEP)
        if self.memory is None or step is None:
            what = f"{self.path} has no memory plan: its runtime allocates by itself"
            raise UserError(Problem("no-plan", what, fix="compile it with --backend tvm"))
        return self.memory, step


def read_subject(path: Path) -> Subject:
    """Return an artifact to draw; it may be for any machine.

    Raises:
        UserError: It is no artifact, or it lacks what pictures need or holds it damaged.
    """
    manifest = read_manifest(path)
    details = read_details(path)
    memory = None
    if MEMORY in details:
        try:
            memory = read_occupancy(details[MEMORY])
        except ValueError as error:
            what = f"the plan in {path} cannot be read: {error}"
            fix = "compile the model again"
            raise UserError(Problem("damaged-details", what, fix=fix)) from error
    return Subject(path.resolve().stem, path, manifest, memory, stages_of(details))
