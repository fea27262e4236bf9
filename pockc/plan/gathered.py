"""Which values a graph reads by rows only, where an index says: embedding tables."""

from __future__ import annotations

from collections import defaultdict

from pockc.ir.graph import Graph, Node


def gathered(graph: Graph) -> frozenset[str]:
    """Return the inputs that are read, and only by `take` along their first dimension.

    Of such a tensor a step needs few rows, and which ones nobody knows before.
    """
    by_rows: dict[str, bool] = defaultdict(lambda: True)
    for node in graph.nodes:
        for position, value in enumerate(node.inputs):
            by_rows[value] &= _takes_rows(node, position)
    for output in graph.outputs:
        by_rows[output.value] = False
    return frozenset(i.name for i in graph.inputs if by_rows.get(i.name))


def _takes_rows(node: Node, position: int) -> bool:
    if node.op == "take":
        return position == 0 and node.attrs["axis"] == 0
    body = node.attrs.get("body")
    if not isinstance(body, Graph) or position >= len(body.inputs):
        return False
    return body.inputs[position].name in gathered(body)
