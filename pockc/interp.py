"""The meaning of a graph, in NumPy: slow, obvious, and the oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pockc.errors import Problem, UserError
from pockc.ir.graph import Graph
from pockc.ir.roles import InputRole, OutputRole
from pockc.ops.base import evaluate


def run(graph: Graph, given: Mapping[InputRole, np.ndarray]) -> dict[OutputRole, np.ndarray]:
    """Return the outputs of a graph, by role.

    Args:
        graph: A well-formed graph.
        given: An array in logical order for every input.

    Raises:
        UserError: [interp-input] An input is missing or has another shape or dtype.
    """
    _check(graph, given)
    values = values_of(graph, {i.name: np.asarray(given[i.role]) for i in graph.inputs})
    return {o.role: values[o.value] for o in graph.outputs}


def values_of(graph: Graph, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every value of a graph by name, given those of its inputs."""
    values = dict(given)
    for node in graph.nodes:
        values[node.name] = evaluate(node, [values[i] for i in node.inputs])
    return values


def _check(graph: Graph, given: Mapping[InputRole, np.ndarray]) -> None:
    problems = []
    for i in graph.inputs:
        if i.role not in given:
            problems.append(Problem("interp-input", f"{i.role} is not given", at=f"%{i.name}"))
            continue
        array = np.asarray(given[i.role])
        if array.shape != i.type.shape or array.dtype != i.type.dtype.np:
            found = f"{array.dtype}{list(array.shape)}"
            problems.append(
                Problem(
                    "interp-input", f"{i.role} is {found}, expected {i.type}", at=f"%{i.name}"
                )
            )
    if problems:
        raise UserError(*problems)
