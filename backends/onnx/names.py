"""How the operators of a model are named: by part of the step, module and value."""

from __future__ import annotations

from collections.abc import Callable

from pockc.ir.graph import Node


def node_path(node: Node, phase_of: Callable[[Node], str]) -> str:
    """Return the name of a node's result, as `forward/layers.0.fc1/matmul_3`."""
    module = "" if node.source is None else node.source.module
    return "/".join(filter(None, (phase_of(node), module, node.name)))
