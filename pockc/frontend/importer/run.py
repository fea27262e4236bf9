"""The loop that imports a traced graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from pockc.errors import InternalError, Problem, UserError
from pockc.frontend.dtypes import tensor_type
from pockc.frontend.importer.base import (
    HANDLERS,
    ONE_TO_ONE,
    PLACEMENT,
    Importer,
    Result,
    Unsupported,
    Value,
    op_name,
    promoted,
)
from pockc.frontend.importer.problems import problem_of, spelled, unsupported
from pockc.ir import DType, Graph, InputRole, OutputRole, Source, TensorType
from pockc.ops import OPS, OpKind


def import_graph(
    name: str,
    module: fx.GraphModule,
    inputs: Mapping[fx.Node, tuple[InputRole, TensorType] | np.ndarray],
    outputs: Sequence[tuple[OutputRole, int]],
    source_of: Callable[[fx.Node], Source | None],
) -> Graph:
    """Return the graph of some results of a traced module.

    Args:
        name: Name of the graph.
        module: A functional ATen graph with fake values on its nodes.
        inputs: For every placeholder its role and type, or the array it always holds. Those
            that no result needs are left out of the graph.
        outputs: Roles, each with the position of its result among the module's results.
        source_of: The user's line of a node.

    Raises:
        UserError: [unsupported-op] or [unsupported-dtype], one for every operation and line.
    """
    results = _results(module)
    wanted = [results[position] for _, position in outputs]
    live = _live(module, wanted)
    if problems := tuple(unsupported(live, source_of)):
        raise UserError(*problems)
    b = Importer(name, live)
    values = _inputs(b, live, inputs, module)
    problems = tuple(_emit_all(b, live, values, source_of))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    for (role, _), node in zip(outputs, wanted, strict=True):
        b.builder.output(role, _one(values[node]))
    return _without_dead(b.builder.build())


def _without_dead(graph: Graph) -> Graph:
    """Drop nodes that handlers emitted and nothing reads."""
    needed = set(graph.output_values)
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return graph.replace(nodes=tuple(n for n in graph.nodes if n.name in needed))


def _inputs(
    b: Importer,
    live: Sequence[fx.Node],
    inputs: Mapping[fx.Node, tuple[InputRole, TensorType] | np.ndarray],
    module: fx.GraphModule,
) -> dict[fx.Node, Result]:
    values: dict[fx.Node, Result] = {}
    for node in live:
        if node.op == "get_attr":
            values[node] = b.literal(_constant(module, str(node.target)))
        elif node.op == "placeholder":
            given = inputs[node]
            if isinstance(given, np.ndarray):
                values[node] = b.literal(given)
            else:
                role, tensor = given
                values[node] = Value(b.builder.input(role, tensor, name=_name_of(role)))
    return values


def _emit_all(
    b: Importer,
    live: Sequence[fx.Node],
    values: dict[fx.Node, Result],
    source_of: Callable[[fx.Node], Source | None],
) -> Iterator[Problem]:
    for node in live:
        if node.op != "call_function":
            continue
        if node.target is operator.getitem:
            whole, at = values[node.args[0]], node.args[1]  # type: ignore[index]
            values[node] = whole[at]  # type: ignore[index, assignment]
            continue
        b.node, b.source, b.outs = node, source_of(node), _types(node)
        try:
            found = _handle(b, node, values)
        except Unsupported as e:
            yield problem_of(node, f"{op_name(node)} {e}", b.source)
            found = b.zeros()
        values[node] = found
        _check_types(b, node, found)


def _handle(b: Importer, node: fx.Node, values: Mapping[fx.Node, Result]) -> Result:
    name = op_name(node)
    args, kwargs = _arguments(node, values)
    handler = HANDLERS.get(name)
    return handler(b, *args, **kwargs) if handler else _one_to_one(b, ONE_TO_ONE[name], args)


def _arguments(
    node: fx.Node, values: Mapping[fx.Node, Result]
) -> tuple[list[Any], dict[str, Any]]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    positional = [a for a in schema if not a.kwarg_only]
    args = list(node.args)
    args += [node.kwargs.get(a.name, a.default_value) for a in positional[len(args) :]]
    named = {
        a.name: node.kwargs.get(a.name, a.default_value)
        for a in schema
        if a.kwarg_only and a.name not in PLACEMENT
    }
    lookup = values.__getitem__
    return (
        list(fx.node.map_arg(tuple(args), lookup)),
        dict(fx.node.map_arg(named, lookup)),
    )


def _one_to_one(b: Importer, op: str, args: Sequence[Any]) -> Value:
    """Emit an op that an ATen operation is, operands brought to the type it computes in."""
    if OPS[op].kind is not OpKind.ELEMENTWISE:
        return b.emit(op, *args)
    dtype = b.out.dtype
    if op in ("logical_and", "logical_or", "logical_not"):
        dtype = DType.B1
    elif dtype is DType.B1:
        dtype = promoted(b, *args)
    return b.apply(op, *args, dtype=dtype)


def _live(module: fx.GraphModule, wanted: Sequence[fx.Node]) -> list[fx.Node]:
    """Return what some nodes depend on, themselves included, in order."""
    needed: set[fx.Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return [n for n in module.graph.nodes if n in needed]


def _results(module: fx.GraphModule) -> list[fx.Node]:
    (output,) = (n for n in module.graph.nodes if n.op == "output")
    return list(output.args[0])


def _types(node: fx.Node) -> tuple[TensorType | None, ...]:
    value = node.meta["val"]
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(tensor_type(t) if isinstance(t, torch.Tensor) else None for t in values)


def _check_types(b: Importer, node: fx.Node, found: Result) -> None:
    values = (found,) if isinstance(found, Value) else found
    for value, expected in zip(values, b.outs, strict=False):
        if value is None or expected is None:
            continue
        if b.type_of(value) != expected:
            raise InternalError(
                Problem(
                    "import-type",
                    f"importing {op_name(node)} gave {b.type_of(value)}, torch says {expected}",
                    at=spelled(node),
                    source=None if b.source is None else str(b.source),
                )
            )


def _one(value: Result) -> Value:
    if not isinstance(value, Value):
        raise InternalError(Problem("import-type", "an output is no single tensor"))
    return value


def _name_of(role: InputRole) -> str:
    return str(getattr(role, "name", role.keyword))


def _constant(module: fx.GraphModule, name: str) -> np.ndarray:
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    return np.asarray(found.detach().cpu().numpy())  # type: ignore[operator]
