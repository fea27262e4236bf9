"""Identities that hold for every elementwise op: what its operands may be replaced by."""

from __future__ import annotations

from pockc.ir import Node
from pockc.passes.identities.simplifier import Rule, Simplifier
from pockc.passes.shapes import Shape, reshape_groups, stripped


def implicit_broadcast(s: Simplifier, n: Node) -> str | None:
    """Drop explicit broadcasts of operands: elementwise ops broadcast by themselves.

        %b = broadcast_to(%x) {shape=(4, 3)}
        %y = add(%a, %b)                        ->    %y = add(%a, %x)

    A constant tensor becomes a scalar. If no operand then has the whole shape, the op is done
    on the small ones and its result is broadcast.
    """
    smaller = tuple(_narrow(s, i) for i in n.inputs)
    if smaller == n.inputs:
        return None
    made = s.again(n, *smaller)
    return s.expanded(made, n.type, n.source)


def _narrow(s: Simplifier, value: str) -> str:
    """Return the least operand that broadcasts to the same thing."""
    node = s.node_of(value)
    while node is not None:
        if node.op == "full" and node.type.shape:
            return s.scalar(node.attrs["value"], node.type.dtype)
        old = s.type_of(node.inputs[0]).shape if node.inputs else ()
        leading_ones = node.op == "reshape" and stripped(node.type.shape) == stripped(old)
        drops = leading_ones and len(old) < len(node.type.shape)
        if node.op != "broadcast_to" and not drops:
            break
        value = node.inputs[0]
        node = s.node_of(value)
    return value


def below_views(s: Simplifier, n: Node) -> str | None:
    """Move a view from the operands to the result.

        %v = reshape(%x) {shape=(8, 32)}
        %y = tanh(%v)                           ->    %t = tanh(%x)
                                                      %y = reshape(%t) {shape=(8, 32)}

    So elementwise ops stay beside the kernel that made their operand and can be fused into it.
    Every operand must be the same view, a scalar, or untouched by the view.
    """
    views = [
        v for v in (s.node_of(i) for i in n.inputs) if v and v.op in ("reshape", "permute")
    ]
    full = [v for v in views if v.type.shape == n.type.shape]
    if not full:
        return None
    view = full[0]
    above = s.type_of(view.inputs[0]).shape
    if [d for d in above if d != 1] == [d for d in n.type.shape if d != 1]:
        return None
    operands = []
    for value in n.inputs:
        moved = _before_view(s, value, view, above)
        if moved is None:
            return None
        operands.append(moved)
    return s.again(view, s.again(n, *operands))


def _before_view(s: Simplifier, value: str, view: Node, above: Shape) -> str | None:
    """Return the operand that the op needs if it is done before the view, None if none is."""
    tensor = s.type_of(value)
    if tensor.size == 1:
        return (
            value if len(stripped(tensor.shape)) == 0 and not tensor.shape else _flat(s, value)
        )
    made = s.node_of(value)
    if made is not None and made.op == view.op and made.attrs == view.attrs:
        found = made.inputs[0]
        return found if s.type_of(found).shape == above else None
    if view.op == "reshape" and (made is None or made.op == "reshape"):
        alike = _alike_above(tensor.shape, above, view.type.shape)
        if alike is not None:
            return s.reshaped(value, alike)
    if view.op == "reshape" and _in_the_tail(tensor.shape, above, view.type.shape):
        return value
    return None


def _flat(s: Simplifier, value: str) -> str:
    return s.reshaped(value, ())


def _alike_above(small: Shape, above: Shape, below: Shape) -> Shape | None:
    """Return the shape that an operand has before a reshape, None if it has none.

    The operand has the rank of the result, and spans each group of dimensions that the reshape
    merges or splits as a whole or not at all.
    """
    if len(small) != len(below) or small == below:
        return None
    shape = [1] * len(above)
    for left, right in reshape_groups(above, below):
        if all(small[d] == below[d] for d in right):
            for d in left:
                shape[d] = above[d]
        elif any(small[d] != 1 for d in right):
            return None
    return tuple(shape)


def _in_the_tail(small: Shape, above: Shape, below: Shape) -> bool:
    """Return whether an operand only spans last dimensions that a reshape leaves alone."""
    rank = len(small)
    if rank > min(len(above), len(below)) or above[len(above) - rank :] != below[-rank:]:
        return False
    groups = reshape_groups(above, below)
    tail = range(len(above) - rank, len(above))
    return all(
        len(left) == 1 == len(right) and len(above) - left[0] == len(below) - right[0]
        for left, right in groups
        if any(d in tail for d in left)
    )


RULES: tuple[Rule, ...] = (implicit_broadcast, below_views)
