"""What cannot be imported, all of it at once, each with the user's line."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import fx

from pockc.errors import Problem
from pockc.frontend.dtypes import dtype_of
from pockc.frontend.importer.base import op_name, supported
from pockc.ir import DType, Source


def unsupported(
    live: Sequence[fx.Node], source_of: Callable[[fx.Node], Source | None]
) -> Iterator[Problem]:
    """Yield a problem for every operation without a handler and for every unusable type."""
    seen = set()
    for node in live:
        line = source_of(node)
        if node.op == "call_function" and node.target is not operator.getitem:
            key = (op_name(node), str(line))
            if not supported(key[0]) and key not in seen:
                seen.add(key)
                yield problem_of(node, f"{key[0]} is not supported", line)
                continue
        for tensor in _tensors(node):
            if dtype_of(tensor.dtype) is None and (str(tensor.dtype), str(line)) not in seen:
                seen.add((str(tensor.dtype), str(line)))
                yield Problem(
                    "unsupported-dtype",
                    f"{node.name} has the element type {tensor.dtype}; choose from: "
                    + ", ".join(d.value for d in DType),
                    at=spelled(node),
                    source=None if line is None else str(line),
                    fix="compute it with real numbers of a supported type",
                )


def problem_of(node: fx.Node, what: str, line: Source | None) -> Problem:
    """Return the problem of an operation that cannot be imported."""
    return Problem(
        "unsupported-op",
        what,
        at=spelled(node),
        source=None if line is None else str(line),
        fix="write it with supported operations, or add a handler in pockc/frontend/importer",
    )


def spelled(node: fx.Node) -> str:
    """Return a traced operation as a line of text."""
    operands = ", ".join(
        f"%{a.name}" if isinstance(a, fx.Node) else _brief(a) for a in node.args
    )
    types = ", ".join(_spell(t) for t in _tensors(node))
    return f"%{node.name} : {types} = {op_name(node)}({operands})"


def _brief(argument: object) -> str:
    if isinstance(argument, (list, tuple)):
        inside = ", ".join(
            f"%{a.name}" if isinstance(a, fx.Node) else _brief(a) for a in argument
        )
        return f"[{inside}]"
    return str(argument)


def _spell(tensor: torch.Tensor) -> str:
    dtype = dtype_of(tensor.dtype)
    name = str(tensor.dtype).removeprefix("torch.") if dtype is None else dtype.value
    return f"{name}[{','.join(map(str, tensor.shape))}]"


def _tensors(node: fx.Node) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return [t for t in leaves if isinstance(t, torch.Tensor)]
