"""What an input or output of a graph is for; no decision looks at how a name is spelled."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the user's model, by its qualified name."""

    name: str
    keyword: ClassVar[str] = "param"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer of the user's model, by its qualified name."""

    name: str
    keyword: ClassVar[str] = "buffer"


@dataclass(frozen=True, slots=True)
class OptState:
    """A tensor that the optimizer keeps for a parameter."""

    slot: str
    param: str
    keyword: ClassVar[str] = "opt_state"


@dataclass(frozen=True, slots=True)
class Batch:
    """An input of the step: a batch of data or targets."""

    name: str
    keyword: ClassVar[str] = "batch"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number the runtime gives at every step: lr, step (counted from 1) or seed."""

    name: str
    keyword: ClassVar[str] = "scalar"


@dataclass(frozen=True, slots=True)
class Loss:
    """The value that the step minimises, a scalar."""

    keyword: ClassVar[str] = "loss"


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of the loss for a parameter; gone once an optimizer is attached."""

    param: str
    keyword: ClassVar[str] = "gradient"


@dataclass(frozen=True, slots=True)
class Update:
    """A parameter's new value."""

    param: str
    keyword: ClassVar[str] = "update"


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """The new value of a tensor that the optimizer keeps."""

    slot: str
    param: str
    keyword: ClassVar[str] = "state_update"


@dataclass(frozen=True, slots=True)
class BufferUpdate:
    """A buffer's new value, as a running mean."""

    name: str
    keyword: ClassVar[str] = "buffer_update"


@dataclass(frozen=True, slots=True)
class Prediction:
    """An output of the user's model."""

    name: str
    keyword: ClassVar[str] = "prediction"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number or a row of numbers to report."""

    name: str
    keyword: ClassVar[str] = "metric"


InputRole = Param | Buffer | OptState | Batch | Scalar
OutputRole = Loss | Gradient | Update | StateUpdate | BufferUpdate | Prediction | Metric
Role = InputRole | OutputRole

INPUT_ROLES: dict[str, type[InputRole]] = {
    r.keyword: r for r in (Param, Buffer, OptState, Batch, Scalar)
}
OUTPUT_ROLES: dict[str, type[OutputRole]] = {
    r.keyword: r
    for r in (Loss, Gradient, Update, StateUpdate, BufferUpdate, Prediction, Metric)
}


def role_fields(role: Role) -> tuple[str, ...]:
    """Return the texts that tell one role of a kind from another, as slot and parameter."""
    return tuple(str(getattr(role, f.name)) for f in fields(role))


def state_written(role: OutputRole) -> InputRole | None:
    """Return the input whose storage an output writes, None if it writes no state."""
    match role:
        case Update(param):
            return Param(param)
        case StateUpdate(slot, param):
            return OptState(slot, param)
        case BufferUpdate(name):
            return Buffer(name)
        case _:
            return None
