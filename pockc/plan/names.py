"""Names of the tensors of a state and of kernels: in the tables, in files and in messages."""

from __future__ import annotations

from pockc.ir.roles import Buffer, OptState, Param
from pockc.plan.types import COPY_KERNEL, Constant, StateKey

GRAD_SUM_SLOT = "grad_sum"
"""The optimizer slot in which micro-batches add up their gradients."""


def tensor_name(key: StateKey) -> str:
    """Return the name of a tensor of the state; a model's own tensors keep theirs."""
    match key:
        case Param(name) | Buffer(name):
            return name
        case OptState(slot, param):
            return f"optimizer.{slot}.{param}"
        case Constant(digest, layout):
            # One content may be kept in several orders.
            order = "" if layout is None else "." + "_".join(map(str, layout))
            return f"constant.{digest}{order}"


def kernel_family(symbol: str) -> str:
    """Return what a kernel's symbol says of it, `k_<family>_<hash>`."""
    return "copy" if symbol == COPY_KERNEL else symbol[2:].rpartition("_")[0]
