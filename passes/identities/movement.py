"""Identities of views and moves: reshape, permute, broadcast_to, slice, pad, concat."""

from __future__ import annotations

from pockc.ir import Node
from pockc.passes.identities.simplifier import Rule, Simplifier
from pockc.passes.shapes import keepdims_shape, merges_only, reshape_groups, splits_only


def same_shape(s: Simplifier, n: Node) -> str | None:
    """A reshape or broadcast to the shape that is there -> its operand."""
    return n.inputs[0] if s.type_of(n.inputs[0]).shape == n.type.shape else None


def of_constant(s: Simplifier, n: Node) -> str | None:
    """A move of a constant tensor -> a constant tensor."""
    found = s.made_by(n.inputs[0], "full")
    return None if found is None else s.full(found.attrs["value"], n.type, n.source)


def twice(s: Simplifier, n: Node) -> str | None:
    """reshape(reshape(x)) -> reshape(x); so for broadcasts."""
    inner = s.made_by(n.inputs[0], n.op)
    return None if inner is None else s.again(n, inner.inputs[0])


def broadcast_of_ones(s: Simplifier, n: Node) -> str | None:
    """A broadcast that repeats nothing -> a reshape."""
    if s.type_of(n.inputs[0]).size != n.type.size:
        return None
    return s.reshaped(n.inputs[0], n.type.shape, n.source)


def keep_reduced_axes(s: Simplifier, n: Node) -> str | None:
    """Restore the axes of a reduction -> never drop them."""
    inner = s.node_of(n.inputs[0])
    if inner is None or not inner.op.startswith("reduce_") or inner.attrs["keepdims"]:
        return None
    axes = inner.attrs["axes"]
    operand = s.type_of(inner.inputs[0])
    if keepdims_shape(operand.shape, axes) != n.type.shape:
        return None
    return s.build(inner.op, inner.inputs[0], axes=axes, keepdims=True, source=inner.source)


def drop_reduced_axes(s: Simplifier, n: Node) -> str | None:
    """Drop the axes that a reduction kept -> never keep them."""
    inner = s.node_of(n.inputs[0])
    if inner is None or not inner.op.startswith("reduce_") or not inner.attrs["keepdims"]:
        return None
    axes = inner.attrs["axes"]
    if not axes or n.type.shape != tuple(
        size for d, size in enumerate(inner.type.shape) if d not in axes
    ):
        return None
    return s.build(inner.op, inner.inputs[0], axes=axes, keepdims=False, source=inner.source)


def split_before_permute(s: Simplifier, n: Node) -> str | None:
    """reshape(permute(x)) that splits dimensions only -> permute(reshape(x))."""
    inner = s.made_by(n.inputs[0], "permute")
    if inner is None or not splits_only(inner.type.shape, n.type.shape):
        return None
    old, new = inner.type.shape, n.type.shape
    if len([d for d in new if d == 1]) != len([d for d in old if d == 1]):
        return None
    pieces = {left[0]: right for left, right in reshape_groups(old, new)}
    ones_new = iter([d for d, size in enumerate(new) if size == 1])
    for d, size in enumerate(old):
        if size == 1:
            pieces[d] = [next(ones_new)]
    if [d for at in range(len(old)) for d in pieces[at]] != list(range(len(new))):
        return None
    perm = inner.attrs["perm"]
    where = {axis: at for at, axis in enumerate(perm)}
    order = [d for axis in range(len(perm)) for d in pieces[where[axis]]]
    split = s.reshaped(inner.inputs[0], tuple(new[d] for d in order), n.source)
    back = tuple(order.index(d) for d in range(len(new)))
    return s.build("permute", split, perm=back, source=n.source)


def identity_permute(s: Simplifier, n: Node) -> str | None:
    """A permute that moves nothing -> its operand; one that moves only ones -> a reshape."""
    perm, shape = n.attrs["perm"], s.type_of(n.inputs[0]).shape
    if perm == tuple(range(len(perm))):
        return n.inputs[0]
    real = [d for d in perm if shape[d] != 1]
    if real == sorted(real):
        return s.reshaped(n.inputs[0], n.type.shape, n.source)
    return None


def permute_twice(s: Simplifier, n: Node) -> str | None:
    """permute(permute(x)) -> permute(x)."""
    inner = s.made_by(n.inputs[0], "permute")
    if inner is None:
        return None
    perm = tuple(inner.attrs["perm"][d] for d in n.attrs["perm"])
    return s.build("permute", inner.inputs[0], perm=perm, source=n.source)


def permute_before_merge(s: Simplifier, n: Node) -> str | None:
    """permute(reshape(x)) where the reshape merges dimensions only -> reshape(permute(x))."""
    inner = s.made_by(n.inputs[0], "reshape")
    if inner is None:
        return None
    old, new = s.type_of(inner.inputs[0]).shape, inner.type.shape
    if not merges_only(old, new) or sum(d == 1 for d in old) != sum(d == 1 for d in new):
        return None
    if splits_only(old, new):
        return None
    pieces = {right[0]: left for left, right in reshape_groups(old, new)}
    ones_old = iter([d for d, size in enumerate(old) if size == 1])
    for d, size in enumerate(new):
        if size == 1:
            pieces[d] = [next(ones_old)]
    if [d for at in range(len(new)) for d in pieces[at]] != list(range(len(old))):
        return None
    perm = tuple(d for axis in n.attrs["perm"] for d in pieces[axis])
    moved = s.build("permute", inner.inputs[0], perm=perm, source=n.source)
    return s.reshaped(moved, n.type.shape, n.source)


def permute_before_broadcast(s: Simplifier, n: Node) -> str | None:
    """permute(broadcast_to(x)) of one rank -> broadcast_to(permute(x))."""
    inner = s.made_by(n.inputs[0], "broadcast_to")
    if inner is None or s.type_of(inner.inputs[0]).rank != n.type.rank:
        return None
    moved = s.again(n, inner.inputs[0])
    return s.build("broadcast_to", moved, shape=n.type.shape, source=n.source)


def whole_slice(s: Simplifier, n: Node) -> str | None:
    """A slice of everything -> its operand."""
    return n.inputs[0] if s.type_of(n.inputs[0]).shape == n.type.shape else None


def slice_twice(s: Simplifier, n: Node) -> str | None:
    """slice(slice(x)) -> slice(x)."""
    inner = s.made_by(n.inputs[0], "slice")
    if inner is None or 0 in n.type.shape:
        return None
    outer = zip(n.attrs["starts"], n.attrs["steps"], n.type.shape, strict=True)
    first = zip(inner.attrs["starts"], inner.attrs["steps"], strict=True)
    starts, stops, steps = [], [], []
    for (start, step, size), (base, stride) in zip(outer, first, strict=True):
        starts.append(base + start * stride)
        steps.append(step * stride)
        stops.append(starts[-1] + (size - 1) * steps[-1] + 1)
    return s.build(
        "slice",
        inner.inputs[0],
        starts=tuple(starts),
        stops=tuple(stops),
        steps=tuple(steps),
        source=n.source,
    )


def slice_of_concat(s: Simplifier, n: Node) -> str | None:
    """A slice inside one part of a concat -> a slice of the part."""
    inner = s.made_by(n.inputs[0], "concat")
    if inner is None or 0 in n.type.shape:
        return None
    axis = inner.attrs["axis"]
    start, stop = n.attrs["starts"][axis], n.attrs["stops"][axis]
    at = 0
    for part in inner.inputs:
        size = s.type_of(part).shape[axis]
        if at <= start and stop <= at + size:
            starts, stops = list(n.attrs["starts"]), list(n.attrs["stops"])
            starts[axis], stops[axis] = start - at, stop - at
            return s.build(
                "slice",
                part,
                starts=tuple(starts),
                stops=tuple(stops),
                steps=n.attrs["steps"],
                source=n.source,
            )
        at += size
    return None


def empty_pad(_s: Simplifier, n: Node) -> str | None:
    """A pad by nothing -> its operand."""
    return None if any(n.attrs["low"]) or any(n.attrs["high"]) else n.inputs[0]


def slice_of_pad(s: Simplifier, n: Node) -> str | None:
    """A slice that lies inside what was padded -> a slice of that."""
    inner = s.made_by(n.inputs[0], "pad")
    if inner is None or 0 in n.type.shape:
        return None
    low, shape = inner.attrs["low"], s.type_of(inner.inputs[0]).shape
    starts = tuple(a - b for a, b in zip(n.attrs["starts"], low, strict=True))
    stops = tuple(a - b for a, b in zip(n.attrs["stops"], low, strict=True))
    if any(a < 0 for a in starts) or any(a > b for a, b in zip(stops, shape, strict=True)):
        return None
    return s.build(
        "slice",
        inner.inputs[0],
        starts=starts,
        stops=stops,
        steps=n.attrs["steps"],
        source=n.source,
    )


def concat_of_few(s: Simplifier, n: Node) -> str | None:
    """A concat of one tensor -> that; empty parts go; concats of one axis become one."""
    axis = n.attrs["axis"]
    parts: list[str] = []
    for value in n.inputs:
        inner = s.made_by(value, "concat")
        if inner is not None and inner.attrs["axis"] == axis:
            parts += inner.inputs
        elif s.type_of(value).shape[axis] or len(n.inputs) == 1:
            parts.append(value)
    if len(parts) == 1:
        return parts[0]
    if not parts or tuple(parts) == n.inputs:
        return None
    return s.build("concat", *parts, axis=axis, source=n.source)


def concat_of_neighbours(s: Simplifier, n: Node) -> str | None:
    """pad(x) + pad(y), zeros of which one ends where the other begins -> pad(concat(x, y)).

    This is what the gradient of a split looks like.
    """
    pads = [s.made_by(i, "pad") for i in n.inputs]
    if pads[0] is None or pads[1] is None:
        return None
    a, b = pads[0], pads[1]
    if a.attrs["value"] != 0 or b.attrs["value"] != 0 or a.type.shape != b.type.shape:
        return None
    if a.attrs["low"] > b.attrs["low"]:
        a, b = b, a
    low_a, low_b = a.attrs["low"], b.attrs["low"]
    high_a, high_b = a.attrs["high"], b.attrs["high"]
    shape_a = s.type_of(a.inputs[0]).shape
    axes = [d for d in range(n.type.rank) if (low_a[d], high_a[d]) != (low_b[d], high_b[d])]
    if len(axes) != 1 or low_a[axes[0]] + shape_a[axes[0]] != low_b[axes[0]]:
        return None
    axis = axes[0]
    both = s.build("concat", a.inputs[0], b.inputs[0], axis=axis, source=n.source)
    high = tuple(high_b[d] if d == axis else h for d, h in enumerate(high_a))
    return s.build("pad", both, low=low_a, high=high, value=a.attrs["value"], source=n.source)


RULES: dict[str, tuple[Rule, ...]] = {
    "reshape": (
        same_shape,
        of_constant,
        twice,
        keep_reduced_axes,
        drop_reduced_axes,
        split_before_permute,
    ),
    "broadcast_to": (same_shape, broadcast_of_ones, of_constant, twice),
    "permute": (
        identity_permute,
        of_constant,
        permute_twice,
        permute_before_merge,
        permute_before_broadcast,
    ),
    "slice": (whole_slice, of_constant, slice_twice, slice_of_concat, slice_of_pad),
    "pad": (empty_pad,),
    "concat": (concat_of_few,),
    "add": (concat_of_neighbours,),
}
