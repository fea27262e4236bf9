"""What a kernel has to do, as far as its time depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pockc import ops
from pockc.ir import Graph, Node
from pockc.ops import OpKind
from pockc.ops.base import flops_of
from pockc.plan import COPY_KERNEL

COPY = "copy"
"""Kind of the runtime's own copies."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a kernel call.

    Attributes:
        kind: What it is: kernels of a kind are limited by the same things. The op that has the
            arithmetic, with what decides how it is computed, as `conv2d depthwise`; the kind of
            op where there are no products.
        flops: Operations of its products and convolutions; a multiply-add is two.
        other_flops: All other arithmetic, as each op counts it.
        nbytes: Operands and result, each once; of a table that is read by rows, the rows.
    """

    kind: str
    flops: int
    other_flops: int
    nbytes: int


def work_of(graph: Graph, symbol: str, name: str) -> Work:
    """Return the work of a call.

    Args:
        graph: The final graph.
        symbol: The kernel's C symbol.
        name: The node that it computes; of a copy, the value.
    """
    node = graph.node(name)
    if node is None or symbol == COPY_KERNEL:
        return Work(COPY, 0, 0, 2 * graph.type_of(name).nbytes)
    inner = list(inner_nodes(graph, node))
    products = [(flops_of(g, n), n, g) for g, n in inner if _is_product(n)]
    flops = sum(f for f, _, _ in products)
    everything = sum(flops_of(g, n) for g, n in inner)
    if products:
        _, heaviest, where = max(products, key=lambda p: p[0])
        kind = _product_kind(where, heaviest)
    else:
        kinds = {ops.get(n.op).kind for _, n in inner}
        kind = next((k.value for k in WEIGHT if k in kinds), OpKind.ELEMENTWISE.value)
    return Work(kind, flops, everything - flops, _moved(graph, node))


WEIGHT = (OpKind.POOL, OpKind.INDEX, OpKind.REDUCTION, OpKind.MOVE, OpKind.ELEMENTWISE)
"""What a kernel without products is called after, if it does several things."""


def inner_nodes(graph: Graph, node: Node) -> Iterator[tuple[Graph, Node]]:
    """Yield a node, or those of a fused body, each with the graph that has its operands."""
    if node.op == "fused":
        body: Graph = node.attrs["body"]
        for n in body.nodes:
            yield from inner_nodes(body, n)
    else:
        yield graph, node


def _is_product(node: Node) -> bool:
    return ops.get(node.op).kind is OpKind.CONTRACTION


def _product_kind(graph: Graph, node: Node) -> str:
    """Return the op with what decides how it is computed: the filter's size, depthwise."""
    if "groups" not in node.attrs:
        return node.op
    filters = node.attrs.get("weight_shape") or graph.operand_types(node)[1].shape
    if node.attrs["groups"] > 1 and filters[1] == 1:
        return f"{node.op} depthwise"
    return f"{node.op} {'1x1' if filters[2] * filters[3] == 1 else 'window'}"


def _moved(graph: Graph, node: Node) -> int:
    """Return the bytes of operands and result; of a table that is read by rows, the rows."""
    body = node.attrs["body"] if node.op == "fused" else None
    names = node.inputs if body is None else tuple(i.name for i in body.inputs)
    nodes = (node,) if body is None else body.nodes
    rows = dict(_rows_of(graph if body is None else body, nodes))
    result = node.type.nbytes
    total = 0
    for name, type_ in zip(names, graph.operand_types(node), strict=True):
        nbytes, is_changed = rows.get(name, (type_.nbytes, False))
        total += min(nbytes, type_.nbytes)
        if is_changed and "inplace" in node.attrs:
            result = min(nbytes, result)
    return total + result


def _rows_of(graph: Graph, nodes: Sequence[Node]) -> Iterator[tuple[str, tuple[int, bool]]]:
    """Yield the tables, with the bytes of the rows and whether the rows are written."""
    for node in nodes:
        if node.op == "take":
            yield node.inputs[0], (node.type.nbytes, False)
        elif node.op == "index_add":
            yield node.inputs[0], (graph.operand_types(node)[1].nbytes, True)
