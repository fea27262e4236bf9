"""Choose the physical order of every value.

Images are kept channels last and filters (R, S, C, K): 1 x 1 convolutions are then plain matrix
products, and depthwise ones vectorise over channels. Products of matrices read operands in any
order and write their result in the order that its reader wants, so that splitting and merging
attention heads moves no bytes. Everything else follows its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc import ops
from pockc.ir import (
    Attrs,
    Graph,
    Input,
    Node,
    OptState,
    Output,
    Param,
    TensorType,
    state_written,
)
from pockc.ir.verify import Invariant, update_types, views_only
from pockc.ir.views import permuted, reshape_is_view, reshape_view_layout
from pockc.ops import OpKind
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.layout_wishes import FILTERS, IMAGES, Order, layout_wishes, state_layouts
from pockc.passes.rewriting import Rewriter


@dataclass(frozen=True, slots=True)
class ChooseLayout:
    """Give every value a layout, make reshapes views, and insert `relayout` where it must be.

        %v : f32[8,4,64,16] = permute(%q)     ->    %v : f32[8,4,64,16; 0,2,1,3] = permute(%q)
        %y : f32[8,32,9,9] = conv2d(%x, %w)   ->    %y : f32[8,32,9,9; 0,2,3,1] = conv2d(%x, %w)

    Batch inputs and what the caller reads stay row-major; parameters and the state that the
    optimizer keeps for them are converted by the runtime when they are loaded.

    Attributes:
        state: Layout of each parameter that is not row-major, by name. All entries of an
            artifact must agree, so it comes from `state_layouts` of all of them; None asks
            this graph alone.
    """

    state: tuple[tuple[str, Order], ...] | None = None
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (views_only, update_types)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with layouts."""
        state = dict(state_layouts((graph,)) if self.state is None else self.state)
        chooser = _Chooser(graph, state, layout_wishes(graph))
        if chooser.copied:
            # Only now is known which reshapes need the help of those that make their operands.
            chooser = _Chooser(graph, state, layout_wishes(graph, chooser.copied))
        return EliminateDead()(chooser.result())


class _Chooser(Rewriter):
    """One walk: the layouts of operands are known when a node is reached."""

    def __init__(
        self, graph: Graph, state: Mapping[str, Order], wishes: Mapping[str, Order]
    ) -> None:
        super().__init__(graph)
        inputs = [_stored(i, state) for i in graph.inputs]
        self.inputs = inputs
        for given in inputs:
            self._defs[given.name] = given
        self._wishes = wishes
        self._copies: dict[tuple[str, Order], str] = {}
        self.copied: dict[str, Order] = {}
        for node in graph.nodes:
            self.visit(node)

    def visit(self, old: Node) -> None:
        node = self.here(old)
        rule = _RULES.get(node.op) or _BY_KIND[ops.get(node.op).kind]
        made = rule(self, node)
        self.append(old if made == old else made)

    def wish(self, node: Node) -> Order | None:
        """Return the order in which the readers of a value would like it."""
        return self._wishes.get(node.name)

    def order(self, value: str) -> Order:
        return self.type_of(value).order

    def ordered(self, value: str, order: Order) -> str:
        """Return a value in an order: itself, a view, made anew, or copied."""
        tensor = self.type_of(value)
        wanted = tensor.with_layout(order)
        if wanted == tensor:
            return value
        key = (value, order)
        if key not in self._copies:
            self._copies[key] = self._reorder(value, wanted)
        return self._copies[key]

    def _reorder(self, value: str, wanted: TensorType) -> str:
        made = self.node_of(value)
        if made is not None and ops.get(made.op).kind is OpKind.GENERATOR:
            name = self.fresh(made.name)
            return self.append(replace(made, name=name, type=wanted))
        source = None if made is None else made.source
        if reshape_is_view(self.type_of(value), wanted):
            view = self.make("reshape", (value,), _shape(wanted), source=source)
        else:
            log.debug("choose_layout: %%%s to %s: a copy", value, wanted)
            view = self.make("relayout", (value,), _layout(wanted), source=source)
        name = self.fresh(f"{value}_{view.op}")
        return self.append(replace(view, name=name, type=wanted))

    def result(self) -> Graph:
        """Return the graph, what the caller reads row-major and new state as the old."""
        outputs = []
        for o in self.graph.outputs:
            value = self.now(o.value)
            role = state_written(o.role)
            home = self.input_of(role) if role else None
            order = self.order(home) if home else tuple(range(self.type_of(value).rank))
            outputs.append(Output(self.ordered(value, order), o.role))
        return self.finish(outputs)


def _shape(tensor: TensorType) -> Attrs:
    return Attrs({"shape": tensor.shape})


def _layout(tensor: TensorType) -> Attrs:
    return Attrs({"layout": tensor.layout})


def _stored(given: Input, state: Mapping[str, Order]) -> Input:
    match given.role:
        case Param(name) | OptState(_, name):
            order = state.get(name)
            # Some optimizers keep smaller tensors, as Adafactor's row and column means.
            if order is not None and len(order) == given.type.rank:
                return replace(given, type=given.type.with_layout(order))
        case _:
            pass
    return given


def _typed(node: Node, inputs: Iterable[str], order: Order) -> Node:
    return replace(node, inputs=tuple(inputs), type=node.type.with_layout(order))


def _elementwise(c: _Chooser, node: Node) -> Node:
    """The layout of the largest operand of the whole shape; others are brought to it."""
    whole = [i for i in node.inputs if c.type_of(i).shape == node.type.shape]
    order = _majority(c, node, whole)
    same = (c.ordered(i, order) if i in whole else i for i in node.inputs)
    return _typed(node, same, order)


def _majority(c: _Chooser, node: Node, operands: list[str]) -> Order:
    """Return the order that leaves most bytes where they are, preferring what readers want."""
    weights: dict[Order, int] = {}
    wish = c.wish(node)
    for value in dict.fromkeys(operands):
        made, tensor = c.node_of(value), c.type_of(value)
        if made is None or ops.get(made.op).kind is not OpKind.GENERATOR:
            order = tensor.order
            if wish is not None and reshape_is_view(tensor, tensor.with_layout(wish)):
                order = wish  # they differ in where dimensions of size 1 stand
            weights[order] = weights.get(order, 0) + tensor.nbytes
    if not weights:
        return wish or tuple(range(node.type.rank))
    best = max(weights.values())
    if wish is not None and weights.get(wish) == best:
        return wish
    return next(order for order, weight in weights.items() if weight == best)


def _follow_first(c: _Chooser, node: Node) -> Node:
    """The layout of the first operand, which has the rank of the result."""
    return _typed(node, node.inputs, c.order(node.inputs[0]))


def _reduction(c: _Chooser, node: Node) -> Node:
    order = c.order(node.inputs[0])
    if node.type.rank == len(order):
        return _typed(node, node.inputs, order)
    axes = node.attrs["axes"] if "axes" in node.attrs else (node.attrs["axis"],)
    left = [d for d in range(len(order)) if d not in axes]
    return _typed(node, node.inputs, tuple(left.index(d) for d in order if d in left))


def _free(c: _Chooser, node: Node) -> Node:
    """The layout that the readers want, else what it is, row-major; operands in any."""
    return _typed(node, node.inputs, c.wish(node) or node.type.order)


def _matmul(c: _Chooser, node: Node) -> Node:
    """As readers want, if rows or columns stay innermost."""
    wish, rank = c.wish(node), node.type.rank
    if wish is None or wish[-1] < rank - 2:
        wish = tuple(range(rank))
    return _typed(node, node.inputs, wish)


def _images(*orders: Order) -> Callable[[_Chooser, Node], Node]:
    """Return the rule of an op on images: the order of each operand, then of the result."""

    def rule(c: _Chooser, node: Node) -> Node:
        operands = (c.ordered(i, o) for i, o in zip(node.inputs, orders, strict=False))
        return _typed(node, operands, orders[-1])

    return rule


def _permute(c: _Chooser, node: Node) -> Node:
    return replace(node, type=permuted(c.type_of(node.inputs[0]), node.attrs["perm"]))


def _reshape(c: _Chooser, node: Node) -> Node:
    """A view if there is one; else the operand is copied to where there is."""
    x = node.inputs[0]
    if node.type.layout is not None and reshape_is_view(c.type_of(x), node.type):
        return node
    found = reshape_view_layout(c.type_of(x), node.type.shape)
    if found is None:
        c.copied[node.name] = c.order(x)
        wanted = node.type.with_layout(c.wish(node))
        before = reshape_view_layout(wanted, c.type_of(x).shape)
        x = c.ordered(x, tuple(range(c.type_of(x).rank)) if before is None else before.order)
        found = reshape_view_layout(c.type_of(x), node.type.shape) or node.type
    return replace(node, inputs=(x,), type=found)


def _take(c: _Chooser, node: Node) -> Node:
    """Chosen channels stay in the order of all of them."""
    same_rank = c.type_of(node.inputs[0]).rank == node.type.rank
    return _follow_first(c, node) if same_rank else _free(c, node)


def _concat(c: _Chooser, node: Node) -> Node:
    order = _majority(c, node, list(node.inputs))
    return _typed(node, (c.ordered(i, order) for i in node.inputs), order)


def _put(c: _Chooser, node: Node) -> Node:
    order = c.order(node.inputs[0])
    return _typed(node, (node.inputs[0], c.ordered(node.inputs[1], order)), order)


def _index_add(c: _Chooser, node: Node) -> Node:
    order = c.order(node.inputs[0])
    return _typed(node, node.inputs, order)


def _as_it_is(_c: _Chooser, node: Node) -> Node:
    return node


_ChooserRule = Callable[[_Chooser, Node], Node]

_RULES: Mapping[str, _ChooserRule] = {
    "permute": _permute,
    "reshape": _reshape,
    "matmul": _matmul,
    "conv2d": _images(IMAGES, FILTERS, IMAGES),
    "conv2d_grad_input": _images(IMAGES, FILTERS, IMAGES),
    "conv2d_grad_weight": _images(IMAGES, IMAGES, FILTERS),
    "max_pool2d": _images(IMAGES, IMAGES),
    "max_pool2d_grad": _images(IMAGES, IMAGES, IMAGES),
    "avg_pool2d": _images(IMAGES, IMAGES),
    "avg_pool2d_grad": _images(IMAGES, IMAGES),
    "slice": _follow_first,
    "pad": _follow_first,
    "cumsum": _follow_first,
    "take_along": _follow_first,
    "take_along_grad": _follow_first,
    "take": _take,
    "concat": _concat,
    "put": _put,
    "index_add": _index_add,
    "relayout": _as_it_is,
}

_BY_KIND: Mapping[OpKind, _ChooserRule] = {
    OpKind.ELEMENTWISE: _elementwise,
    OpKind.GENERATOR: _free,
    OpKind.MOVE: _free,
    OpKind.INDEX: _free,
    OpKind.REDUCTION: _reduction,
    OpKind.CONTRACTION: _free,
    OpKind.POOL: _free,
    OpKind.FUSED: _as_it_is,
    OpKind.VIEW: _reshape,
}
