"""Identities of reductions, gathers and products."""

from __future__ import annotations

import numpy as np

from pockc.ir import Node
from pockc.passes.identities.simplifier import Rule, Simplifier
from pockc.passes.selecting import as_range
from pockc.passes.shapes import (
    Shape,
    broadcast_shape,
    keepdims_shape,
    merges_only,
    reshape_groups,
    size_of,
)


def over_ones(s: Simplifier, n: Node) -> str | None:
    """Axes of size 1 need no reduction: reduce the others and reshape."""
    shape = s.type_of(n.inputs[0]).shape
    axes = tuple(a for a in n.attrs["axes"] if shape[a] != 1)
    if len(axes) == len(n.attrs["axes"]) and axes:
        return None
    x = n.inputs[0]
    if axes:
        x = s.build(n.op, x, axes=axes, keepdims=True, source=n.source)
    return s.reshaped(x, n.type.shape, n.source)


def reduce_twice(s: Simplifier, n: Node) -> str | None:
    """reduce(reduce(x)) -> reduce(x) over the axes of both."""
    inner = s.made_by(n.inputs[0], n.op)
    if inner is None:
        return None
    rank = s.type_of(inner.inputs[0]).rank
    if inner.attrs["keepdims"]:
        outer = set(n.attrs["axes"])
    else:
        left = [d for d in range(rank) if d not in inner.attrs["axes"]]
        outer = {left[a] for a in n.attrs["axes"]}
    axes = tuple(sorted(outer | set(inner.attrs["axes"])))
    x = s.build(n.op, inner.inputs[0], axes=axes, keepdims=True, source=n.source)
    return s.reshaped(x, n.type.shape, n.source)


def of_merged(s: Simplifier, n: Node) -> str | None:
    """reduce(reshape(x)) where the reshape merges dimensions -> reduce(x)."""
    inner = s.made_by(n.inputs[0], "reshape")
    if inner is None:
        return None
    old, new = s.type_of(inner.inputs[0]).shape, inner.type.shape
    if not merges_only(old, new):
        return None
    groups = {right[0]: left for left, right in reshape_groups(old, new)}
    axes = tuple(sorted(d for a in n.attrs["axes"] for d in groups.get(a, ())))
    x = s.build(n.op, inner.inputs[0], axes=axes, keepdims=True, source=n.source)
    return s.reshaped(x, n.type.shape, n.source)


def of_permuted(s: Simplifier, n: Node) -> str | None:
    """reduce(permute(x)) -> permute(reduce(x))."""
    inner = s.made_by(n.inputs[0], "permute")
    if inner is None:
        return None
    perm = inner.attrs["perm"]
    axes = tuple(sorted(perm[a] for a in n.attrs["axes"]))
    x = s.build(n.op, inner.inputs[0], axes=axes, keepdims=True, source=n.source)
    return s.reshaped(s.build("permute", x, perm=perm, source=n.source), n.type.shape, n.source)


def of_broadcast(s: Simplifier, n: Node) -> str | None:
    """The sum of n equal numbers -> n times the number; their maximum is the number."""
    inner = s.made_by(n.inputs[0], "broadcast_to")
    if inner is None:
        return None
    small, large = s.type_of(inner.inputs[0]).shape, inner.type.shape
    small = (1,) * (len(large) - len(small)) + small
    repeated = [a for a in n.attrs["axes"] if small[a] != large[a]]
    if not repeated:
        return None
    x = s.reshaped(inner.inputs[0], small, n.source)
    if n.op == "reduce_sum":
        times = size_of(tuple(large[a] for a in repeated))
        x = s.build("mul", x, s.scalar(_number(times, n), n.type.dtype), source=n.source)
    x = s.build(n.op, x, axes=n.attrs["axes"], keepdims=True, source=n.source)
    kept = keepdims_shape(large, n.attrs["axes"])
    x = s.expanded(x, n.type.with_shape(kept), n.source)
    return s.reshaped(x, n.type.shape, n.source)


def of_one_number(s: Simplifier, n: Node) -> str | None:
    """The reduction of a constant tensor -> a constant."""
    inner = s.made_by(n.inputs[0], "full")
    if inner is None or not inner.type.size:
        return None
    value = inner.attrs["value"]
    if n.op == "reduce_sum":
        value = value * _number(inner.type.size // max(n.type.size, 1), n)
    return s.full(value, n.type, n.source)


def _number(count: int, n: Node) -> float:
    return float(count) if n.type.dtype.is_float else count


def gather_early(s: Simplifier, n: Node) -> str | None:
    """take_along of an elementwise op -> the op on what is taken of its operands.

        %d = sub(%x, %m)                          %t = take_along(%x, %i) {axis=1}
        %y = take_along(%d, %i) {axis=1}    ->    %y = sub(%t, %m)

    Done when fewer elements are taken than there are; operands of size 1 along the axis stay.
    """
    inner = s.node_of(n.inputs[0])
    if inner is None or inner.op not in _POINTWISE or n.type.size >= inner.type.size:
        return None
    axis, index = n.attrs["axis"], n.inputs[1]
    operands = []
    for value in inner.inputs:
        shape = s.type_of(value).shape
        at = axis - (inner.type.rank - len(shape))
        if at < 0 or shape[at] == 1:
            operands.append(value)
        elif shape == inner.type.shape:
            operands.append(s.build("take_along", value, index, axis=axis, source=n.source))
        else:
            return None
    return s.expanded(s.again(inner, *operands), n.type, n.source)


_POINTWISE = frozenset({"add", "sub", "mul", "div", "neg", "log", "exp", "cast", "where"})


def scatter_one(s: Simplifier, n: Node) -> str | None:
    """take_along_grad of one element per row -> where(position = index, dy, 0).

    This makes the gradient of a cross-entropy elementwise.
    """
    axis, (dy, index) = n.attrs["axis"], n.inputs
    if s.type_of(index).shape[axis] != 1 or not n.type.dtype.is_float:
        return None
    shape = [1] * n.type.rank
    shape[axis] = n.type.shape[axis]
    dtype = s.type_of(index).dtype
    place = s.build("iota", shape=tuple(shape), axis=axis, dtype=dtype, source=n.source)
    here = s.build("eq", place, index, source=n.source)
    return s.build("where", here, dy, s.scalar(0.0, n.type.dtype), source=n.source)


def take_of_range(s: Simplifier, n: Node) -> str | None:
    """A take at evenly spaced constant places -> a slice."""
    found = _range_of(s, n.inputs[1])
    if found is None:
        return None
    axis, operand = n.attrs["axis"], s.type_of(n.inputs[0])
    if found[0] < 0 or found[1] > operand.shape[axis]:
        return None
    starts, stops, steps = [0] * operand.rank, list(operand.shape), [1] * operand.rank
    starts[axis], stops[axis], steps[axis] = found
    x = s.build(
        "slice",
        n.inputs[0],
        starts=tuple(starts),
        stops=tuple(stops),
        steps=tuple(steps),
        source=n.source,
    )
    return s.reshaped(x, n.type.shape, n.source)


def scatter_of_range(s: Simplifier, n: Node) -> str | None:
    """A take_grad at neighbouring constant places -> a pad."""
    found = _range_of(s, n.inputs[1])
    axis, size = n.attrs["axis"], n.attrs["size"]
    if found is None or found[2] != 1 or not n.type.dtype.is_float:
        return None
    shape = n.type.shape
    flat = (*shape[:axis], found[1] - found[0], *shape[axis + 1 :])
    if size_of(flat) != s.type_of(n.inputs[0]).size or found[1] > size:
        return None
    low, high = [0] * len(shape), [0] * len(shape)
    low[axis], high[axis] = found[0], size - found[1]
    x = s.reshaped(n.inputs[0], flat, n.source)
    return s.build("pad", x, low=tuple(low), high=tuple(high), value=0.0, source=n.source)


def _range_of(s: Simplifier, index: str) -> tuple[int, int, int] | None:
    node = s.node_of(index)
    while node is not None and node.op in ("reshape", "cast") and node.type.dtype.is_integer:
        node = s.node_of(node.inputs[0])
    if node is None or not node.type.dtype.is_integer:
        return None
    if node.op == "iota" and node.type.size == node.type.shape[node.attrs["axis"]]:
        return 0, node.type.size, 1
    if node.op == "literal":
        flat: np.ndarray = node.attrs["value"].array.reshape(-1)
        return as_range(tuple(int(i) for i in flat)) if flat.size else None
    return None


def product_of_merged(s: Simplifier, n: Node) -> str | None:
    """A product of matrices whose leading dimensions were merged -> on the unmerged.

        %a = reshape(%x) {shape=(32, 64)}         %p = matmul(%x, %w)
        %y = matmul(%a, %w)                 ->    %y = reshape(%p) {shape=(32, 48)}

    Views then stay beside each other and cancel, and layouts alone transpose heads.
    """
    a, b = n.inputs
    left, right = s.made_by(a, "reshape"), s.made_by(b, "reshape")
    shape_a, shape_b = s.type_of(a).shape, s.type_of(b).shape
    if left is not None and len(shape_a) == 2 and len(shape_b) == 2:
        lead = _merged_rows(s.type_of(left.inputs[0]).shape, shape_a)
        # Where the sum runs over merged dimensions, as in a weight's gradient, rows are whole.
        if lead is not None and (right is None or not _merges_rows(s, right)):
            rows = s.reshaped(left.inputs[0], (*lead, shape_a[1]), n.source)
            return s.reshaped(s.again(n, rows, b), n.type.shape, n.source)
    for view in (left, right):
        if view is None or len(shape_a) < 3 or shape_a[:-2] != shape_b[:-2]:
            continue
        x = s.type_of(view.inputs[0]).shape
        if len(x) <= len(shape_a) or x[-2:] != view.type.shape[-2:]:
            continue
        lead = x[:-2]
        operands = (
            s.reshaped(a, (*lead, *shape_a[-2:]), n.source),
            s.reshaped(b, (*lead, *shape_b[-2:]), n.source),
        )
        return s.reshaped(s.again(n, *operands), n.type.shape, n.source)
    return None


def _merges_rows(s: Simplifier, view: Node) -> bool:
    return _merged_rows(s.type_of(view.inputs[0]).shape, view.type.shape) is not None


def _merged_rows(old: Shape, new: Shape) -> Shape | None:
    """Return the dimensions that a reshape to a matrix merges into rows, if it merges any."""
    groups = reshape_groups(old, new)
    if [right for _, right in groups] != [[0], [1]] or len(groups[0][0]) == 1:
        return None
    return tuple(old[d] for d in groups[0][0])


def product_of_broadcast(s: Simplifier, n: Node) -> str | None:
    """A product with an operand repeated over leading dimensions -> without repeating it."""
    operands = list(n.inputs)
    for at, value in enumerate(n.inputs):
        inner = s.made_by(value, "broadcast_to")
        if inner is None:
            continue
        x = s.type_of(inner.inputs[0]).shape
        if len(x) >= 2 and x[-2:] == inner.type.shape[-2:]:
            operands[at] = inner.inputs[0]
            leads = [s.type_of(o).shape[:-2] for o in operands]
            if broadcast_shape(leads) == n.type.shape[:-2]:
                return s.again(n, *operands)
            operands[at] = value
    return None


_REDUCTION: tuple[Rule, ...] = (
    over_ones,
    of_one_number,
    reduce_twice,
    of_merged,
    of_permuted,
    of_broadcast,
)

RULES: dict[str, tuple[Rule, ...]] = {
    "reduce_sum": _REDUCTION,
    "reduce_max": _REDUCTION,
    "reduce_min": _REDUCTION,
    "take_along": (gather_early,),
    "take_along_grad": (scatter_one,),
    "take": (take_of_range,),
    "take_grad": (scatter_of_range,),
    "matmul": (product_of_merged, product_of_broadcast),
}
