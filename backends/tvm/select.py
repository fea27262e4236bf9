"""Which kernel computes which node: identical nodes share one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pockc.backends.base import (
    Kernel,
    Selection,
    kernel_symbol,
    kernel_text,
    needs_kernel,
    unlowered,
)
from pockc.backends.schedule import DEFAULT, Schedule
from pockc.backends.tvm import cache
from pockc.backends.tvm.lowering import NATIVE, lower_kernel
from pockc.backends.tvm.targets import Target
from pockc.errors import UserError
from pockc.ir.graph import Graph, Node
from pockc.plan.types import Call


def select(
    graph: Graph,
    target: Target,
    threads: int,
    schedules: Mapping[str, Schedule] = MappingProxyType({}),
) -> Selection:
    """Choose a kernel for every node that needs one, with the schedule of its symbol.

    Raises:
        UserError: [no-lowering] for every node whose op has no lowering.
    """
    if problems := tuple(unlowered(graph, NATIVE, "tvm")):
        raise UserError(*problems)
    kernels: dict[str, Kernel] = {}
    calls: dict[str, Call] = {}
    for node in graph.nodes:
        if not needs_kernel(graph, node):
            continue
        kernel = kernel_of(graph, node, threads)
        if kernel.symbol not in kernels:
            schedule = schedules.get(kernel.symbol, DEFAULT)
            kernels[kernel.symbol] = with_schedule(kernel, schedule, target)
        found = kernels[kernel.symbol]
        calls[node.name] = Call(found.symbol, node.inputs, found.workspace_bytes)
    return Selection(calls, dict(sorted(kernels.items())))


def kernel_of(graph: Graph, node: Node, threads: int) -> Kernel:
    """Return the kernel of a node, without its workspaces."""
    operands = graph.operand_types(node)
    text = kernel_text(node, operands)
    symbol = kernel_symbol(_family(node), text)
    return Kernel(symbol, text, replace(node, source=None), operands, threads)


def _family(node: Node) -> str:
    """Return what the kernel's name says of it: the op, of a fused body its anchor's."""
    if node.op != "fused":
        return node.op
    heavy = [n.op for n in node.attrs["body"].nodes]
    for prefix in ("conv2d", "matmul", "reduce", "max_pool", "avg_pool"):
        if any(op.startswith(prefix) for op in heavy):
            return f"fused_{prefix}"
    return "fused"


def with_schedule(kernel: Kernel, schedule: Schedule, target: Target) -> Kernel:
    """Return a kernel with a schedule and the workspaces that it then needs.

    Raises:
        UserError: [unknown-choice] Its generator does not offer a choice of the schedule.
    """
    kernel = replace(kernel, schedule=schedule)
    name = cache.key(kernel, target)
    found = cache.read_workspaces(name)
    if found is None:
        lowered = lower_kernel(kernel, target)
        if lowered.not_offered:
            raise UserError(*lowered.not_offered)
        found = lowered.workspace_bytes
        cache.write_workspaces(name, found)
    return replace(kernel, workspace_bytes=found)
