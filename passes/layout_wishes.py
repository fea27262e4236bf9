"""Which physical order the readers of a value would like it in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from pockc import ops
from pockc.ir import Graph, Node, Param, TensorType
from pockc.ir.views import reshape_view_layout
from pockc.ops import OpKind
from pockc.passes.shapes import reshape_groups

Order = tuple[int, ...]

IMAGES: Order = (0, 2, 3, 1)
"""(N, C, H, W) kept as N, H, W, C."""
FILTERS: Order = (2, 3, 1, 0)
"""(K, C, R, S) kept as R, S, C, K."""

NOTHING: Mapping[str, Order] = MappingProxyType({})

# The order of each operand of an op on images.
IMAGE_OPS: Mapping[str, tuple[Order, ...]] = {
    "conv2d": (IMAGES, FILTERS),
    "conv2d_grad_input": (IMAGES, FILTERS),
    "conv2d_grad_weight": (IMAGES, IMAGES),
    "max_pool2d": (IMAGES,),
    "max_pool2d_grad": (IMAGES, IMAGES),
    "avg_pool2d": (IMAGES,),
    "avg_pool2d_grad": (IMAGES,),
}


def layout_wishes(graph: Graph, copied: Mapping[str, Order] = NOTHING) -> dict[str, Order]:
    """Return for each value the order that its readers would like, where they care.

    A wish travels from a reader to the operand through elementwise ops and views. Ops on images
    come first, then the nearest reader in the order of the graph.

    Args:
        graph: The graph.
        copied: The reshapes that would have to copy without a wish, each with the order in
            which its operand would come. They wish for one as near to it as a view allows.
    """
    wishes: dict[str, Order] = {}
    firm: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in IMAGE_OPS:
            for value, order in zip(node.inputs, IMAGE_OPS[node.op], strict=False):
                wishes[value] = order
                firm.add(value)
            continue
        for value, order in _passed_on(graph, node, wishes.get(node.name), copied):
            if value not in firm:
                wishes[value] = order
                if node.name in firm:
                    firm.add(value)
    return wishes


def _passed_on(
    graph: Graph, node: Node, wish: Order | None, copied: Mapping[str, Order]
) -> Iterator[tuple[str, Order]]:
    """Yield what a node wishes of its operands, given what is wished of it."""
    if wish is None and node.name in copied:
        wish = _nearest_view(graph.type_of(node.inputs[0]), node.type, copied[node.name])
    if wish is None:
        return
    if node.op == "reshape":
        shape = graph.type_of(node.inputs[0]).shape
        found = reshape_view_layout(node.type.with_layout(wish), shape)
        if found is not None:
            yield node.inputs[0], found.order
    elif node.op == "permute":
        yield node.inputs[0], tuple(node.attrs["perm"][d] for d in wish)
    elif node.op.startswith("reduce_"):
        yield node.inputs[0], _before_reduction(graph, node, wish)
    elif ops.get(node.op).kind is OpKind.ELEMENTWISE or node.op in _ALIKE:
        for value in node.inputs:
            if _alike(node, graph.type_of(value)):
                yield value, wish


def _nearest_view(operand: TensorType, result: TensorType, natural: Order) -> Order:
    """Return an order of a reshape's result under which it can be a view.

    What is merged must lie together; what is innermost in the operand's natural order stays so.
    """
    groups = reshape_groups(operand.shape, result.shape)
    groups.sort(key=lambda g: natural.index(g[0][-1]))
    order = [d for _, right in groups for d in right]
    ones = [d for d in range(result.rank) if d not in order]
    return tuple(ones + order)


def _before_reduction(graph: Graph, node: Node, wish: Order) -> Order:
    """Return the order of an operand whose reduction has the wished order.

    A reduced axis lies behind its left neighbour, so that what is innermost tends to stay.
    """
    rank, axes = graph.type_of(node.inputs[0]).rank, node.attrs["axes"]
    if node.attrs["keepdims"]:
        return wish
    kept = [d for d in range(rank) if d not in axes]
    order = [kept[d] for d in wish]
    for axis in sorted(axes):
        order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)


_ALIKE = frozenset({"slice", "pad", "concat", "put", "take_along_grad"})


def _alike(node: Node, operand: TensorType) -> bool:
    if node.op in _ALIKE:
        return operand.rank == node.type.rank
    return operand.shape == node.type.shape


def state_layouts(graphs: Iterable[Graph]) -> tuple[tuple[str, Order], ...]:
    """Return the layouts of parameters that are not to be kept row-major, sorted by name.

    Filters of convolutions are; every entry of an artifact must be given the same answer, also
    one that only adds to the parameter and cannot know.
    """
    found: dict[str, Order] = {}
    for graph in graphs:
        names = {i.name: i.role.name for i in graph.inputs if isinstance(i.role, Param)}
        for node in graph.nodes:
            if node.op in ("conv2d", "conv2d_grad_input") and node.inputs[1] in names:
                found[names[node.inputs[1]]] = FILTERS
    return tuple(sorted(found.items()))
