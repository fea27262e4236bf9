"""What the frontend hands on: graphs, arrays and plain facts about the model. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal as OneOf

import numpy as np

from pockc.ir import DType, Graph, TensorType

Kind = OneOf["weight", "bias"]


@dataclass(frozen=True, slots=True)
class ParamInfo:
    """A parameter that the loss depends on.

    Attributes:
        name: Qualified name, the first one if the parameter is tied.
        type: Shape and element type.
        module: Qualified name of the module that owns it, "" for the model itself.
        module_type: Class name of that module, as "Linear".
        kind: "bias" if it has one dimension and is only ever added to something in the
            forward pass, whatever its name; otherwise "weight".
        first_use: Position of its first use in the forward pass; orders parameters by depth.
    """

    name: str
    type: TensorType
    module: str
    module_type: str
    kind: Kind
    first_use: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module of the model.

    Attributes:
        name: Qualified name, "" for the model itself.
        type: Class name, as "Linear".
        library: Top-level package that defines the class, as "torch" or "transformers".
        facts: Numbers found on the module or its configuration that say how its channels are
            grouped: num_heads, num_key_value_heads, head_dim.
    """

    name: str
    type: str
    library: str = ""
    facts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An array that the user gives at every step.

    Attributes:
        name: Name of the argument of `forward`, or "target".
        type: Shape and element type of one whole batch.
        rows: Whether the first dimension is the batch, which micro-batches split.
    """

    name: str
    type: TensorType
    rows: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one batch."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype


@dataclass(frozen=True, slots=True)
class LabelInfo:
    """What integer labels may be: 0 <= label < num_classes, or ignore_index."""

    num_classes: int
    ignore_index: int | None


@dataclass(frozen=True)
class Captured:
    """A model traced with its loss.

    Attributes:
        train: One training step of `batch / micro_batches` rows. Inputs have the roles Param,
            Buffer, Batch and Scalar("seed"); outputs are Loss, a Gradient for every entry of
            `parameters`, and BufferUpdate where batch statistics are updated.
        evaluate: The loss without dropout. For a loss of ours, per row: Metric "loss_rows" and
            "weight_rows" (the loss is sum over sum) and, for classification, "correct_rows"
            and "count_rows". For any other loss, Loss alone.
        predict: Prediction "0", "1", ... in the order in which the model returns tensors.
        values: Parameters and buffers by qualified name, tied ones once.
        aliases: Other names of tied tensors, each with the name that `values` has.
        state_names: The keys of the model's `state_dict()`, in order, tied names included.
        parameters: What can be trained, in the model's order. A parameter that the loss does
            not depend on is not here, and neither is one of integers.
        modules: All modules in the model's order, the model itself first.
        inputs: What `forward` takes, in order.
        targets: What the loss takes besides the model's outputs, in order.
        loss: Name of the loss: one of ours, "custom" or "model".
        labels: What labels are legal, None if the targets are no class labels.
        micro_batches: Into how many parts a batch is split.
        class_names: Names of the classes, if the user gave any.
    """

    train: Graph
    evaluate: Graph
    predict: Graph
    values: Mapping[str, np.ndarray]
    aliases: Mapping[str, str]
    state_names: tuple[str, ...]
    parameters: Mapping[str, ParamInfo]
    modules: tuple[ModuleInfo, ...]
    inputs: tuple[InputSpec, ...]
    targets: tuple[InputSpec, ...]
    loss: str
    labels: LabelInfo | None = None
    micro_batches: int = 1
    class_names: tuple[str, ...] | None = None

    @property
    def rows(self) -> int:
        """Rows of one batch, micro-batches together."""
        return next((i.shape[0] for i in self.inputs if i.rows), 1)


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that an optimizer keeps for a parameter; all elements start at `initial`."""

    type: TensorType
    initial: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One parameter update for one tensor type.

    Attributes:
        graph: Inputs Param("p"), OptState(slot, "p"), Batch("grad"), Scalar("lr") and, if it
            is needed, Scalar("step"); outputs Update("p") and StateUpdate(slot, "p").
        slots: The state it keeps, by slot name, in a fixed order.
    """

    graph: Graph
    slots: Mapping[str, Slot]
