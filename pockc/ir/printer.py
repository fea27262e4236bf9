"""Graph text. `parse_graph(print_graph(g)) == g`; the grammar is in parser.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pockc.ir.attrs import Attrs, AttrValue, Literal
from pockc.ir.roles import Role, role_fields
from pockc.ir.source_text import source_comment
from pockc.ir.types import DType

if TYPE_CHECKING:
    from pockc.ir.graph import Graph, Node

# More elements than this would bury the graph: they are named by their hash instead.
INLINE_ELEMENTS = 16


def print_graph(graph: Graph, *, sources: bool = False) -> str:
    """Return the text of a graph, one line per input, node and output.

    Args:
        graph: What to print.
        sources: Add the user's line as a comment to every node that has one.
    """
    return "\n".join(_graph_lines(graph, sources=sources)) + "\n"


def print_node(node: Node) -> str:
    """Return the line of one node, without indentation."""
    operands = ", ".join(f"%{i}" for i in node.inputs)
    return f"%{node.name} : {node.type} = {node.op}({operands}){_attrs(node.attrs)}"


def literals_of(graph: Graph) -> dict[str, Literal]:
    """Return, by hash, the literals that the text of a graph names and does not hold."""
    found: dict[str, Literal] = {}
    for node in graph.nodes:
        for value in node.attrs.values():
            _collect(value, found)
    return found


def _collect(value: AttrValue, found: dict[str, Literal]) -> None:
    if isinstance(value, Literal):
        if value.array.size > INLINE_ELEMENTS:
            found[value.digest] = value
    elif isinstance(value, tuple):
        for v in value:
            _collect(v, found)
    elif value is not None and not isinstance(value, (int, float, str, DType)):
        found.update(literals_of(value))


def _graph_lines(graph: Graph, *, sources: bool) -> Iterator[str]:
    yield f"graph {graph.name} {{"
    for i in graph.inputs:
        yield f"  %{i.name} : {i.type} = input {_role(i.role)}"
    for node in graph.nodes:
        line = "  " + print_node(node).replace("\n", "\n  ")
        yield line + source_comment(node.source) if sources and node.source else line
    for o in graph.outputs:
        yield f"  output {_role(o.role)} %{o.value}"
    yield "}"


def _role(role: Role) -> str:
    return " ".join((role.keyword, *map(json.dumps, role_fields(role))))


def _attrs(attrs: Attrs) -> str:
    if not attrs:
        return ""
    return " {" + ", ".join(f"{k}={_value(v)}" for k, v in attrs.items()) + "}"


def _value(value: AttrValue) -> str:
    if isinstance(value, tuple):
        inner = ", ".join(map(_value, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Literal):
        return _literal(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, str):
        return json.dumps(value)
    if value is None or isinstance(value, (bool, int, float)):
        return _atom(value)
    return "\n".join(_graph_lines(value, sources=False))


def _atom(value: float | None) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return repr(value)


def _literal(literal: Literal) -> str:
    if literal.array.size > INLINE_ELEMENTS:
        return f'literal {literal.type} "{literal.digest}"'
    items = ", ".join(_atom(v) for v in literal.array.reshape(-1).tolist())
    return f"literal {literal.type} [{items}]"
