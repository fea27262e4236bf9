"""Torch's own decompositions of operations that we have no handler for.

They are tried in two places. An operation of the forward pass is replaced before autograd sees
it, so that its gradient is made of simple operations too. What C++ code or autograd itself
brings in, backward operations above all, is replaced when it is recorded.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._decomp import decomposition_table

from pockc.frontend.importer import supported

# The other decompositions end in operations of torch.prims, which have no gradients.
_MODULE = "torch._decomp.decompositions"


@functools.cache
def fallbacks() -> Mapping[Any, Callable[..., Any]]:
    """Return a decomposition for each pure operation that is not imported as it is."""
    return {
        op: function
        for op, function in decomposition_table.items()
        if isinstance(op, torch._ops.OpOverload)
        and not op._schema.is_mutable
        and not supported(str(op))
        and inspect.unwrap(function).__module__ == _MODULE
    }


def forward_fallback(op: object) -> Callable[..., Any] | None:
    """Return what runs instead of an operation of a forward pass, None for itself.

    What C++ code composes of other operations is left to it: those may have handlers.
    """
    if not isinstance(op, torch._ops.OpOverload):
        return None
    name: str = op.name()  # type: ignore[no-untyped-call]
    composed = torch._C._dispatch_has_kernel_for_dispatch_key(
        name, torch._C.DispatchKey.CompositeImplicitAutograd
    )
    return None if composed else fallbacks().get(op)
