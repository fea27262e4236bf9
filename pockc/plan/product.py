"""What a backend makes of the entries of an artifact: files, and what they hold.

A backend that generates code plans every byte and links; one that hands whole graphs to another
runtime writes those. The artifact is written alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pockc.ir.roles import InputRole, OutputRole
from pockc.ir.types import TensorType
from pockc.plan.types import StateKey, StateSlot
from pockc.runtime.manifest import Machine


@dataclass(frozen=True, slots=True)
class Made:
    """An entry point.

    Attributes:
        name: As `train_step`.
        inputs: What goes in, those of the state included.
        outputs: What comes out, new state included.
        in_place: State whose new value may be written over the old one, where that is left to
            the runtime.
        steps: Calls that it takes: of kernels, or nodes of a graph.
        arena_bytes: Scratch that was planned for it; 0 if its runtime allocates by itself.
        lower_bound_bytes: What it takes at least.
    """

    name: str
    inputs: Sequence[tuple[InputRole, TensorType]]
    outputs: Sequence[tuple[OutputRole, TensorType]]
    steps: int
    in_place: Sequence[StateKey] = ()
    arena_bytes: int = 0
    lower_bound_bytes: int = 0


@dataclass(frozen=True)
class Product:
    """All that an artifact needs of a backend.

    Attributes:
        program: Which runtime runs it; a `program` of the manifest.
        files: The files of the program, by their name in the artifact. The file of frozen
            tensors is one of them where the program's constants lie in it.
        programs: Those of them that can be run.
        memory_map: The plan as text, for pictures; "" if the backend plans nothing.
        machine: What it needs of the machine that runs it.
        state: Every tensor that lasts between calls.
        entries: The entry points.
        memory: Planned bytes: `state_bytes`, `frozen_bytes` and `arena_bytes`; for code of our
            own also `runtime_bytes`, at most what the process takes besides.
        report: For `inspect`: memory by purpose, kernels. JSON values.
    """

    program: str
    files: Mapping[str, Path]
    machine: Machine
    state: tuple[StateSlot, ...]
    entries: tuple[Made, ...]
    memory: Mapping[str, int]
    report: Mapping[str, Any] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    memory_map: str = ""
