"""From a kernel's node to a C function in TVM's representation."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pockc.backends.base import Kernel
from pockc.backends.tvm import kernels
from pockc.backends.tvm.body import emit_body
from pockc.backends.tvm.builder import Builder, Offer, lower
from pockc.backends.tvm.targets import Target
from pockc.backends.tvm.tir import Code, Memory, argument, c_function
from pockc.backends.tvm.values import inline, stored
from pockc.errors import Problem
from pockc.ir.graph import Graph, Input, Node, Output
from pockc.ir.roles import Batch, Prediction

for _module in sorted(m.name for m in pkgutil.iter_modules(kernels.__path__)):
    importlib.import_module(f"{kernels.__name__}.{_module}")

NATIVE = inline.names | lower.names | {"fused"}
"""The ops that this backend lowers."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A kernel before code generation.

    Attributes:
        function: TVM's function.
        workspace_bytes: Size of each workspace argument.
        offered: The choices that its generator made: what was chosen and the alternatives.
        not_offered: A problem for each choice of the schedule that the generator lacks.
    """

    function: Any
    workspace_bytes: tuple[int, ...]
    offered: Mapping[str, Offer]
    not_offered: Sequence[Problem] = ()


def lower_kernel(kernel: Kernel, target: Target) -> Lowered:
    """Write the code of a kernel."""
    node = kernel.node
    body = body_of(kernel)
    sizes = [t.size for t in (*kernel.operands, node.type)]
    code = Code(index_dtype="int32" if max(sizes) < 1 << 31 else "int64")
    b = Builder(target, kernel.threads, code, schedule=kernel.schedule)
    operands = [argument(f"operand{i}", t.size, t.dtype) for i, t in enumerate(kernel.operands)]
    inplace = node.attrs.get("inplace")
    arguments: list[Memory] = list(operands)
    if inplace is None:
        result = argument("result", node.type.size, node.type.dtype)
        arguments.append(result)
    else:
        result = operands[inplace]
    emit_body(
        b,
        body,
        [stored(t, m) for t, m in zip(kernel.operands, operands, strict=True)],
        stored(node.type, result),
    )
    function = c_function(kernel.symbol, [*arguments, *b.workspaces], b.code.finish())
    workspaces = tuple(w.nbytes for w in b.workspaces)
    return Lowered(function, workspaces, b.offered, b.not_offered())


def body_of(kernel: Kernel) -> Graph:
    """Return the body of a fused kernel, or a body that is the one node."""
    node = kernel.node
    if node.op == "fused":
        body: Graph = node.attrs["body"]
        return body
    inputs = tuple(Input(f"x{i}", t, Batch(str(i))) for i, t in enumerate(kernel.operands))
    alone = Node("y", node.op, tuple(i.name for i in inputs), node.attrs, node.type)
    return Graph("body", inputs, (alone,), (Output("y", Prediction("0")),))
