"""Compute the gradients of the selected channels only.

Sub-tensor updates (Lin et al., On-Device Training Under 256KB Memory, NeurIPS 2022, §3.2): if
only some channels of a weight are trained, the gradient of the others need not exist. The
selection moves from the gradient towards what it is made of, as far as that saves something:
the product becomes smaller, and of an input channel that is not trained the activation need
not be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import ClassVar

from pockc import ops
from pockc.errors import Problem, UserError
from pockc.ir import Attrs, Gradient, Graph, Node
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.ops import OpKind
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter
from pockc.passes.selecting import Selection, emit_selection
from pockc.passes.shapes import reshape_groups


@dataclass(frozen=True, slots=True)
class SliceChannels:
    """Replace the gradient of a parameter by that of its selected channels.

        %t = permute(%dy) {perm=(1, 0)}           %s = slice(%dy) of 2 of 8 columns
        %g = matmul(%t, %x)                 ->    %t = permute(%s) {perm=(1, 0)}
        output gradient "w" %g                    %g = matmul(%t, %x)
                                                  output gradient "w" %g

    Attributes:
        selections: For each parameter that is trained in part, its name, the axis, and the
            indices along it in increasing order.
    """

    selections: tuple[tuple[str, Selection], ...]
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __repr__(self) -> str:
        """Name parameters and numbers of channels; the indices would fill pages."""
        parts = (f"{p}: {len(s[1])} along {s[0]}" for p, s in self.selections)
        return f"SliceChannels({', '.join(parts)})"

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with the gradients of selected channels.

        Raises:
            UserError: [unknown-parameter] or [bad-selection], for each that does not fit.
        """
        gradients = {
            o.role.param: o.value for o in graph.outputs if isinstance(o.role, Gradient)
        }
        if problems := tuple(self._problems(graph, gradients)):
            raise UserError(*problems)
        slicer = _Slicer(graph)
        made = {p: slicer.select(gradients[p], s) for p, s in self.selections}
        outputs = tuple(
            replace(o, value=made[o.role.param])
            if isinstance(o.role, Gradient) and o.role.param in made
            else o
            for o in graph.outputs
        )
        if outputs == graph.outputs:
            return graph
        made_graph = EliminateDead()(graph.replace(nodes=slicer.ordered(), outputs=outputs))
        return _move_on(made_graph, slicer.selected)

    def _problems(self, graph: Graph, gradients: Mapping[str, str]) -> Iterator[Problem]:
        for param, (axis, indices) in self.selections:
            if param not in gradients:
                near = get_close_matches(param, gradients)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                yield Problem(
                    "unknown-parameter",
                    f"parameter '{param}' has no gradient in this graph{hint}",
                    fix=f"choose from: {', '.join(gradients) or 'none'}",
                )
                continue
            tensor = graph.type_of(gradients[param])
            increasing = list(indices) == sorted(set(indices))
            fits = 0 <= axis < tensor.rank and indices and increasing
            if not fits or indices[0] < 0 or indices[-1] >= tensor.shape[axis]:
                yield Problem(
                    "bad-selection",
                    f"channels {_some(indices)} along axis {axis} of '{param}' : {tensor}",
                    fix="give increasing indices within the axis",
                )


def _move_on(graph: Graph, selected: Mapping[str, Selection]) -> Graph:
    """Move selections past values that had several readers, and now have one.

    The gradient behind a layer is read by the gradients of its weight and its bias: when both
    are selected from, nobody is left who reads it as a whole.
    """
    while selected:
        slicer = _Slicer(graph)
        moved: dict[str, str] = {}
        for node in graph.nodes:
            if node.name in selected and slicer.alone(node.inputs[0]):
                part = slicer.pushed(node.inputs[0], selected[node.name])
                if part is not None:
                    moved[node.name] = part
        if not moved:
            break
        graph = EliminateDead()(graph.replace(nodes=slicer.ordered()).substitute(moved))
        selected = slicer.selected
    return graph


def _some(indices: tuple[int, ...]) -> str:
    return ", ".join(map(str, indices[:6])) + (", ..." if len(indices) > 6 else "")


class _Slicer(Rewriter):
    """Makes selected versions of values; each stands right behind the value it is part of."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._defs.update(graph.defs)
        self._made: dict[tuple[str, Selection], str] = {}
        self.selected: dict[str, Selection] = {}
        """The nodes that select from a whole value, and what they select."""
        self._place = {n.name: at for at, n in enumerate(graph.nodes)}
        self._behind: list[tuple[int, Node]] = []

    def select(self, value: str, selection: Selection) -> str:
        """Return the selected part of a value."""
        axis, indices = selection
        if indices == tuple(range(self.type_of(value).shape[axis])):
            return value
        key = (value, selection)
        if key not in self._made:
            made = self.pushed(value, selection)
            if made is None:
                count = len(self.nodes)
                made = emit_selection(self, value, selection)
                self.selected[made] = selection
                self._take_new(value, count)
            self._made[key] = made
        return self._made[key]

    def _take_new(self, value: str, count: int) -> None:
        """Note that the nodes from a number on belong behind a value."""
        at = self._place.get(value, -1)
        self._behind += [(at, n) for n in self.nodes[count:]]
        del self.nodes[count:]

    def alone(self, value: str) -> bool:
        """Whether one node reads a value of the graph."""
        outside = value in self.graph.output_values
        return value in self._place and len(self.graph.users[value]) == 1 and not outside

    def ordered(self) -> tuple[Node, ...]:
        """Return old and new nodes, operands first."""
        old = [(at, 0, n) for at, n in enumerate(self.graph.nodes)]
        new = [(at, 1 + i, n) for i, (at, n) in enumerate(self._behind)]
        return tuple(n for _, _, n in sorted(old + new, key=lambda t: t[:2]))

    def pushed(self, value: str, selection: Selection) -> str | None:
        """Return the part made of parts of the operands, None if that saves nothing."""
        node = self.graph.node(value)
        if node is None or not self._worth(node):
            return None
        rule = _RULES.get(node.op)
        if rule is None and ops.get(node.op).kind is OpKind.ELEMENTWISE:
            rule = _elementwise
        made = rule(self, node, selection) if rule else None
        if made is None:
            log.debug("slice_channels: %%%s = %s is selected from as a whole", value, node.op)
            return None
        operands, attrs = made
        part = self.make(node.op, operands, attrs, source=node.source)
        count = len(self.nodes)
        name = self.append(replace(part, name=self.fresh(f"{value}_part")))
        self._take_new(value, count)
        return name

    def _worth(self, node: Node) -> bool:
        """With other readers the whole value is there: selecting from it is but a copy."""
        readers = self.graph.users[node.name]
        outputs = sum(o.value == node.name for o in self.graph.outputs)
        cheap = ops.get(node.op).kind is OpKind.GENERATOR or node.op == "broadcast_to"
        return cheap or len(readers) + outputs <= 1


_Made = tuple[tuple[str, ...], Attrs]
_Rule = Callable[[_Slicer, Node, Selection], "_Made | None"]


def _elementwise(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    return _selected_operands(s, node, selection), node.attrs


def _selected_operands(s: _Slicer, node: Node, selection: Selection) -> tuple[str, ...]:
    """Select from each operand that has the axis; one of size 1 is broadcast along it."""
    axis, indices = selection
    operands = []
    for value in node.inputs:
        shape = s.type_of(value).shape
        at = axis - (node.type.rank - len(shape))
        whole = at < 0 or shape[at] == 1
        operands.append(value if whole else s.select(value, (at, indices)))
    return tuple(operands)


def _matmul(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    axis, indices = selection
    a, b = node.inputs
    rank = node.type.rank
    if axis == rank - 2:
        a = s.select(a, (s.type_of(a).rank - 2, indices))
    elif axis == rank - 1:
        b = s.select(b, (s.type_of(b).rank - 1, indices))
    else:
        return None
    return (a, b), node.attrs


def _permute(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    axis, indices = selection
    return (s.select(node.inputs[0], (node.attrs["perm"][axis], indices)),), node.attrs


def _reshape(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    axis, indices = selection
    old = s.type_of(node.inputs[0]).shape
    for left, right in reshape_groups(old, node.type.shape):
        if right == [axis] and len(left) == 1:
            x = s.select(node.inputs[0], (left[0], indices))
            return (x,), node.attrs.but(shape=_part(node, selection))
    return None


def _part(node: Node, selection: Selection) -> tuple[int, ...]:
    axis, indices = selection
    shape = node.type.shape
    return (*shape[:axis], len(indices), *shape[axis + 1 :])


def _reduction(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    axis, indices = selection
    axes, rank = node.attrs["axes"], s.type_of(node.inputs[0]).rank
    left = [d for d in range(rank) if node.attrs["keepdims"] or d not in axes]
    if left[axis] in axes:
        return None
    return (s.select(node.inputs[0], (left[axis], indices)),), node.attrs


def _broadcast(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    operands = _selected_operands(s, node, selection)
    return operands, node.attrs.but(shape=_part(node, selection))


def _full(_s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    return (), node.attrs.but(shape=_part(node, selection))


def _concat(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    if selection[0] == node.attrs["axis"]:
        return None
    return tuple(s.select(i, selection) for i in node.inputs), node.attrs


def _take_grad(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    """Columns of an embedding's gradient are columns of what is scattered."""
    axis, indices = selection
    dy, index = node.inputs
    at, spread = node.attrs["axis"], s.type_of(index).rank
    if axis == at:
        return None
    moved = axis if axis < at else axis - 1 + spread
    return (s.select(dy, (moved, indices)), index), node.attrs


def _filters(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    """Filters (K, C / groups, R, S): K are channels of dy, C are channels of x."""
    axis, indices = selection
    x, dy = node.inputs
    shape = _part(node, selection)
    groups = node.attrs["groups"]
    if groups == 1 and axis == 0:
        return (x, s.select(dy, (1, indices))), node.attrs.but(weight_shape=shape)
    if groups == 1 and axis == 1:
        return (s.select(x, (1, indices)), dy), node.attrs.but(weight_shape=shape)
    if axis != 0:
        return None
    per_group, channels = node.type.shape[0] // groups, node.type.shape[1]
    chosen = sorted({i // per_group for i in indices})
    if len(chosen) * per_group != len(indices):
        return None
    seen = tuple(g * channels + c for g in chosen for c in range(channels))
    attrs = node.attrs.but(weight_shape=shape, groups=len(chosen))
    return (s.select(x, (1, seen)), s.select(dy, (1, indices))), attrs


def _images(s: _Slicer, node: Node, selection: Selection) -> _Made | None:
    """Channels of images (N, C, H, W) are channels of the filters that make them."""
    axis, indices = selection
    given, filters = node.inputs
    if axis != 1 or node.attrs["groups"] != 1:
        return None
    if node.op == "conv2d":
        return (given, s.select(filters, (0, indices))), node.attrs
    attrs = node.attrs.but(input_shape=_part(node, selection))
    return (given, s.select(filters, (1, indices))), attrs


_RULES: Mapping[str, _Rule] = {
    "matmul": _matmul,
    "permute": _permute,
    "reshape": _reshape,
    "reduce_sum": _reduction,
    "reduce_max": _reduction,
    "reduce_min": _reduction,
    "broadcast_to": _broadcast,
    "full": _full,
    "concat": _concat,
    "take_grad": _take_grad,
    "conv2d": _images,
    "conv2d_grad_input": _images,
    "conv2d_grad_weight": _filters,
}
