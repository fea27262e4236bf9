"""The table of the ops that have a lowering."""

from __future__ import annotations

from collections.abc import Callable

from pockc.backends.base import Lowerings
from pockc.backends.onnx.builder import Builder
from pockc.ir.graph import Node

Rule = Callable[[Builder, Node], str]
"""Adds the operators of a node and returns the name of its result."""

LOWERINGS: Lowerings[Rule] = Lowerings("onnx")
