"""Several nodes that one standard operator does: products and convolutions with their bias, ...

A pattern looks at a node that ends a group and says how the group is lowered and which values
it reads. Nodes that nothing reads then are not written at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pockc.backends.onnx.builder import Builder
from pockc.backends.onnx.lowerings import LOWERINGS
from pockc.backends.onnx.lowerings.convolution import Windows
from pockc.ir.graph import Graph, Node
from pockc.ir.types import DType

Rule = Callable[[Builder, Node], str]


@dataclass(frozen=True)
class Way:
    """How a node is lowered: what that reads, and the rule."""

    reads: tuple[str, ...]
    rule: Rule


Pattern = Callable[[Graph, Node], Way | None]


def ways(graph: Graph) -> dict[str, Way]:
    """Return how each node that is needed is lowered, by its name."""
    needed = set(graph.output_values)
    found: dict[str, Way] = {}
    for node in reversed(graph.nodes):
        if node.name not in needed:
            continue
        made = (p(graph, node) for p in _PATTERNS.get(node.op, ()))
        way = next((w for w in made if w), Way(node.inputs, LOWERINGS[node.op]))
        found[node.name] = way
        needed.update(way.reads)
    return found


def _alone(graph: Graph, value: str, op: str) -> Node | None:
    """Return the node of an op that makes a value, if one node reads it and nobody else."""
    node = graph.node(value)
    if node is None or node.op != op or value in graph.output_values:
        return None
    return node if len(graph.users[value]) == 1 else None


def _number(graph: Graph, value: str) -> float | None:
    """Return a scalar that is known, None if the value is none."""
    node = graph.node(value)
    if node is None or node.op != "full" or node.type.rank:
        return None
    return float(node.attrs["value"])


def _orders(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the operands of a commutative op in both orders."""
    a, b = node.inputs
    yield a, b
    yield b, a


def _transposed(graph: Graph, value: str) -> str | None:
    """Return the matrix that a value is the transpose of."""
    node = graph.node(value)
    if node is None or node.op != "permute" or node.type.rank != 2:
        return None
    return node.inputs[0] if node.attrs["perm"] == (1, 0) else None


def _product(graph: Graph, node: Node) -> Way | None:
    """A product with a transposed matrix: Gemm, which needs no transposed copy."""
    return _gemm(graph, node, None)


def _linear(graph: Graph, node: Node) -> Way | None:
    """A product with a matrix, and a row added: Gemm."""
    for value, bias in _orders(node):
        product = _alone(graph, value, "matmul")
        if product is not None and graph.type_of(bias).shape == product.type.shape[-1:]:
            return _gemm(graph, product, bias)
    return None


def _gemm(graph: Graph, product: Node, bias: str | None) -> Way | None:
    a, b = product.inputs
    if graph.type_of(b).rank != 2 or not product.type.dtype.is_float:
        return None
    left, right = _transposed(graph, a), _transposed(graph, b)
    if left is None and right is None and bias is None:
        return None
    reads = (left or a, right or b, *(() if bias is None else (bias,)))
    inner, columns = graph.type_of(b).shape

    def rule(builder: Builder, node: Node) -> str:
        x, *others = (builder[r] for r in reads)
        if left is None and graph.type_of(a).rank > 2:
            x = builder.reshape(x, (math.prod(graph.type_of(a).shape[:-1]), inner))
        made = builder.op(
            "Gemm",
            x,
            *others,
            transA=None if left is None else 1,
            transB=None if right is None else 1,
        )
        return builder.reshape(made, node.type.shape) if node.type.rank > 2 else made

    return Way(reads, rule) if columns else None


def _biased_convolution(graph: Graph, node: Node) -> Way | None:
    """A convolution and a number added per channel: its bias."""
    for value, bias in _orders(node):
        conv, shape = _alone(graph, value, "conv2d"), graph.type_of(bias).shape
        if conv is None or conv.type.shape != node.type.shape:
            continue
        channels = conv.type.shape[1]
        if shape not in ((channels, 1, 1), (1, channels, 1, 1)):
            continue
        made = graph.node(bias)
        row = made.inputs[0] if made is not None and made.op == "reshape" else bias
        flat = graph.type_of(row).shape == (channels,)
        reads = (*conv.inputs, row if flat else bias)
        images, filters = graph.operand_types(conv)
        windows = Windows.of(conv, images, filters, conv.type)

        def rule(
            builder: Builder,
            node: Node,  # noqa: ARG001  as every rule
            reads: tuple[str, ...] = reads,
            windows: Windows = windows,
            flat: bool = flat,
        ) -> str:
            x, w, added = (builder[r] for r in reads)
            row = added if flat else builder.reshape(added, (windows.filters.shape[0],))
            return builder.op("Conv", x, w, row, **windows.attrs)

        return Way(reads, rule)
    return None


def _one(operator: str, *reads: str) -> Way:
    """Return the way of one operator."""

    def rule(builder: Builder, node: Node) -> str:  # noqa: ARG001  as every rule
        return builder.op(operator, *(builder[r] for r in reads))

    return Way(reads, rule)


def _clip(graph: Graph, node: Node) -> Way | None:
    """The least of a bound and the greatest of another bound: Clip, as in ReLU6."""
    for value, high in _orders(node):
        lower = _alone(graph, value, "maximum")
        if lower is None or _number(graph, high) is None:
            continue
        for x, low in _orders(lower):
            if _number(graph, low) is not None:
                return _one("Clip", x, low, high)
    return None


def _relu(graph: Graph, node: Node) -> Way | None:
    """The greatest of zero: Relu."""
    for x, zero in _orders(node):
        if _number(graph, zero) == 0 and graph.type_of(x).shape == node.type.shape:
            return _one("Relu", x)
    return None


def _masked(graph: Graph, node: Node) -> Way | None:
    """Zero where a mask says so: a product, which is six times as fast as Where.

    Only if what is masked is surely finite, as zero times infinity is no zero.
    """
    mask, kept, other = node.inputs
    negated = _number(graph, kept) == 0
    value, zero = (other, kept) if negated else (kept, other)
    dtype = node.type.dtype
    if _number(graph, zero) != 0 or dtype not in (DType.F32, DType.F64):
        return None
    if graph.type_of(value).shape != node.type.shape or not _finite(graph, value):
        return None

    def rule(builder: Builder, node: Node) -> str:  # noqa: ARG001  as every rule
        taken = builder[mask]
        if negated:
            taken = builder.once(("not", taken), lambda: builder.op("Not", taken))
        factor = builder.once((dtype, taken), lambda: builder.cast(taken, dtype))
        return builder.op("Mul", builder[value], factor)

    return Way((mask, value), rule)


# What these make of finite numbers is finite, unless training has diverged anyway.
_FINITE = frozenset(
    {"add", "sub", "mul", "neg", "cast", "where", "reshape", "permute", "broadcast_to", "slice"}
    | {"concat", "pad", "reduce_sum", "take", "maximum", "minimum"}
)
_SOURCES = frozenset(
    {"matmul", "conv2d", "conv2d_grad_input", "max_pool2d_grad", "avg_pool2d_grad", "tanh"}
    | {"sigmoid", "erf", "literal"}
)


def _finite(graph: Graph, value: str) -> bool:
    """Return whether a value is made by sums and products only, back to parameters.

    Integers and truth values, whatever they were made of, are finite.
    """
    seen, waiting = set(), [value]
    while waiting:
        name = waiting.pop()
        node = graph.node(name)
        if name in seen or node is None or node.op in _SOURCES:
            continue
        seen.add(name)
        if not node.type.dtype.is_float:
            continue
        if node.op == "full" and math.isfinite(float(node.attrs["value"])):
            continue
        if node.op not in _FINITE:
            return False
        waiting += node.inputs
    return True


_PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "matmul": (_product,),
    "add": (_linear, _biased_convolution),
    "minimum": (_clip,),
    "maximum": (_relu,),
    "where": (_masked,),
}
