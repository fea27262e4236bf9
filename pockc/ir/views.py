"""Which reshapes and permutes name the same bytes in another way, and cost nothing."""

from __future__ import annotations

from pockc.ir.graph import Graph, Node
from pockc.ir.types import TensorType

Shape = tuple[int, ...]
Groups = list[tuple[list[int], list[int]]]


def is_view(graph: Graph, node: Node) -> bool:
    """Return whether a node's result is the very bytes of its operand."""
    if node.op not in ("reshape", "permute"):
        return False
    operand = graph.type_of(node.inputs[0])
    if node.op == "permute":
        return _same_memory(permuted(operand, tuple(node.attrs["perm"])), node.type)
    return reshape_is_view(operand, node.type)


def permuted(operand: TensorType, perm: tuple[int, ...]) -> TensorType:
    """Return the type of `permute(operand, perm)` that moves no bytes."""
    where = {old: new for new, old in enumerate(perm)}
    shape = tuple(operand.shape[d] for d in perm)
    return TensorType(shape, operand.dtype, tuple(where[d] for d in operand.order))


def reshape_is_view(operand: TensorType, result: TensorType) -> bool:
    """Return whether a reshape keeps every element in its place in memory.

    It does when each maximal group of dimensions that the reshape merges or splits lies, on
    both sides, in order and in one piece, and the groups follow each other alike. Dimensions
    of size 1 have no place in memory and are ignored.
    """
    if operand.size == 0:
        return True
    return _walk(operand, result)


def _same_memory(a: TensorType, b: TensorType) -> bool:
    """Whether two types of one shape hold their elements in one order."""
    return a.shape == b.shape and _sized(a) == _sized(b)


def _sized(tensor: TensorType) -> list[int]:
    """Return the dimensions larger than 1 in the order of memory."""
    return [d for d in tensor.order if tensor.shape[d] != 1]


def reshape_groups(old: Shape, new: Shape) -> Groups:
    """Pair the fewest neighbouring dimensions of two shapes that have equal products.

    Dimensions of size 1 belong to no group. Shapes without elements have no groups.
    """
    dims_old = [d for d, n in enumerate(old) if n != 1]
    dims_new = [d for d, n in enumerate(new) if n != 1]
    groups: Groups = []
    if 0 in old:
        return groups
    i = j = 0
    while i < len(dims_old):
        left, right = [dims_old[i]], [dims_new[j]]
        size_old, size_new = old[dims_old[i]], new[dims_new[j]]
        i, j = i + 1, j + 1
        while size_old != size_new:
            if size_old < size_new:
                size_old *= old[dims_old[i]]
                left.append(dims_old[i])
                i += 1
            else:
                size_new *= new[dims_new[j]]
                right.append(dims_new[j])
                j += 1
        groups.append((left, right))
    return groups


def _walk(operand: TensorType, result: TensorType) -> bool:
    groups = reshape_groups(operand.shape, result.shape)
    sides = (
        ([g[0] for g in groups], _sized(operand)),
        ([g[1] for g in groups], _sized(result)),
    )
    orders = [_group_order(members, order) for members, order in sides]
    return orders[0] is not None and orders[0] == orders[1]


def _group_order(members: list[list[int]], order: list[int]) -> list[int] | None:
    """Return the groups in the order of memory, None if one is scattered or out of order."""
    group_of = {d: g for g, dims in enumerate(members) for d in dims}
    sequence: list[int] = []
    at = 0
    while at < len(order):
        group = group_of[order[at]]
        dims = members[group]
        if order[at : at + len(dims)] != dims:
            return None
        sequence.append(group)
        at += len(dims)
    return sequence


def reshape_view_layout(operand: TensorType, shape: tuple[int, ...]) -> TensorType | None:
    """Return the type under which a reshape moves no bytes, None if there is none."""
    if operand.size == 0 or operand.row_major:
        return operand.with_shape(shape)
    groups = reshape_groups(operand.shape, shape)
    order = _sized(operand)
    sequence = _group_order([g[0] for g in groups], order)
    if sequence is None:
        return None
    layout = [d for g in sequence for d in groups[g][1]]
    ones = [d for d, n in enumerate(shape) if n == 1]
    return TensorType(shape, operand.dtype, _insert_ones(layout, ones))


def _insert_ones(layout: list[int], ones: list[int]) -> tuple[int, ...]:
    """Put dimensions of size 1 after their left neighbours: the least disturbance."""
    placed = list(layout)
    for d in ones:
        at = placed.index(d - 1) + 1 if d - 1 in placed else 0
        placed.insert(at, d)
    return tuple(placed)
