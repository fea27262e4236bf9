"""What a plan says: where every byte of a step lives and which kernel runs when.

A plan is data only. A place names a memory space, an offset and a size; today there are four
spaces and all lie in host memory. A device arena is a further member of `Space`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pockc.ir.attrs import Literal
from pockc.ir.graph import Graph
from pockc.ir.roles import Buffer, InputRole, OptState, OutputRole, Param
from pockc.ir.types import TensorType

ALIGN_BYTES = 64
"""Every place begins at a multiple of this: one cache line, and one AVX-512 vector."""

COPY_KERNEL = "pk_copy"
"""Kernel of the runtime itself: copies its first place into its second one, of equal size."""

SCALARS = ("lr", "step", "seed")
"""The scalars of a step in the order of their places, from offset 0, `ALIGN_BYTES` apart."""


class Space(enum.Enum):
    """A region of memory that places are offsets into.

    ARENA is scratch: what it holds is gone after the call. STATE is what steps change: it lasts
    as long as the artifact is open and is what a checkpoint keeps. FROZEN is what no step
    changes: it is mapped from a file, read-only, and takes memory only where it is read. SCALAR
    holds the numbers that the caller gives.
    """

    ARENA = "arena"
    STATE = "state"
    FROZEN = "frozen"
    SCALAR = "scalar"


@dataclass(frozen=True, slots=True)
class Place:
    """Some bytes of a space."""

    space: Space
    offset_bytes: int
    nbytes: int

    @property
    def end_bytes(self) -> int:
        """The first offset behind the place."""
        return self.offset_bytes + self.nbytes

    def __str__(self) -> str:
        """Return it as text, as `arena[64:128]`."""
        return f"{self.space.value}[{self.offset_bytes}:{self.end_bytes}]"


@dataclass(frozen=True, slots=True)
class Call:
    """How one node is computed, as a backend selected it.

    Attributes:
        symbol: The kernel's C symbol.
        operands: The values it reads, in the order of its arguments. The result follows them
            unless the node is in place, then come the workspaces.
        workspace_bytes: Size of each workspace; a workspace lives for this step only.
    """

    symbol: str
    operands: tuple[str, ...]
    workspace_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What is planned: a graph in its final order and the call of every node that needs one.

    Views and `literal` nodes without a call cost nothing at run time.
    """

    name: str
    graph: Graph
    calls: Mapping[str, Call]


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: The C symbol, or `COPY_KERNEL`.
        args: Operands, then the result unless in place, then workspaces. `COPY_KERNEL` has two:
            source and target.
        node: The node it computes; for a copy, the value it copies.
    """

    kernel: str
    args: tuple[Place, ...]
    node: str


@dataclass(frozen=True, slots=True)
class InputPort:
    """An input of an entry: the caller fills `place` before the first step."""

    role: InputRole
    type: TensorType
    place: Place


@dataclass(frozen=True, slots=True)
class OutputPort:
    """An output of an entry: the caller reads `place` after the last step."""

    role: OutputRole
    type: TensorType
    place: Place


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """One entry point of the artifact.

    Attributes:
        name: As `train_step`.
        steps: The kernel calls in order.
        inputs: Every input of the graph; parameters and the like lie in STATE.
        outputs: Every output of the graph; new values of the state lie in STATE.
        arena_bytes: Arena that this entry needs.
        lower_bound_bytes: Most bytes alive at one step; no plan of this order needs less.
    """

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    arena_bytes: int
    lower_bound_bytes: int


@dataclass(frozen=True, slots=True)
class Constant:
    """Key of a literal in the state: the content's hash and the order in which it is kept."""

    digest: str
    layout: tuple[int, ...] | None = None


StateKey = Param | Buffer | OptState | Constant


@dataclass(frozen=True, slots=True)
class StateSlot:
    """A tensor that lasts between steps.

    Attributes:
        key: What it is.
        type: Its type; the layout says in which order its bytes lie.
        offset_bytes: Where it begins in its space.
        literal: The content, for a `Constant`.
        space: STATE, or FROZEN if no step writes it.
        gathered: Whether every entry reads it by rows, where an index says.
    """

    key: StateKey
    type: TensorType
    offset_bytes: int
    literal: Literal | None = None
    space: Space = Space.STATE
    gathered: bool = False

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.space, self.offset_bytes, self.type.nbytes)


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Where every tensor that lasts lies; all entries share it.

    Attributes:
        slots: The tensors.
        nbytes: Bytes of STATE.
        frozen_nbytes: Bytes of FROZEN.
    """

    slots: tuple[StateSlot, ...]
    nbytes: int
    frozen_nbytes: int = 0

    def slot(self, key: StateKey) -> StateSlot | None:
        """Return the slot of a tensor, None if no entry uses it."""
        return next((s for s in self.slots if s.key == key), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of an artifact: one state, and one arena that the entries use in turn."""

    state: StateLayout
    entries: tuple[EntryPlan, ...]
    arena_bytes: int
    scalar_bytes: int

    def entry(self, name: str) -> EntryPlan | None:
        """Return an entry by name, None if there is none."""
        return next((e for e in self.entries if e.name == name), None)
