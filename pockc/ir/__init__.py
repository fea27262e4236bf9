"""The intermediate representation: a small immutable graph with typed roles and a text form."""

from pockc.ir.attrs import Attrs, AttrValue, Literal
from pockc.ir.graph import Graph, Input, Node, Output, Source
from pockc.ir.printer import literals_of, print_graph, print_node
from pockc.ir.roles import (
    Batch,
    Buffer,
    BufferUpdate,
    Gradient,
    InputRole,
    Loss,
    Metric,
    OptState,
    OutputRole,
    Param,
    Prediction,
    Role,
    Scalar,
    StateUpdate,
    Update,
    state_written,
)
from pockc.ir.types import DType, TensorType, b1, f32, i64

__all__ = [
    "AttrValue",
    "Attrs",
    "Batch",
    "Buffer",
    "BufferUpdate",
    "DType",
    "Gradient",
    "Graph",
    "Input",
    "InputRole",
    "Literal",
    "Loss",
    "Metric",
    "Node",
    "OptState",
    "Output",
    "OutputRole",
    "Param",
    "Prediction",
    "Role",
    "Scalar",
    "Source",
    "StateUpdate",
    "TensorType",
    "Update",
    "b1",
    "f32",
    "i64",
    "literals_of",
    "print_graph",
    "print_node",
    "state_written",
]
