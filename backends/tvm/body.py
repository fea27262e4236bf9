"""From a body to code: which of its values get loops of their own, and what is inlined where.

The anchors of a body are its nodes that `lower` knows: contractions, reductions, poolings.
Everything else is computed where it is needed. An anchor whose result only passes through
elementwise nodes on its way to the output writes the output itself (its epilogue); any other is
kept in a workspace. So every body is correct, and the four classes of the README are fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pockc import ops
from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels import rows
from pockc.backends.tvm.kernels.move import reshaped_index
from pockc.backends.tvm.pointwise import Pointwise, elementwise_leaves, merged_space, pointwise
from pockc.backends.tvm.tir import FAR_BYTES, Expr
from pockc.backends.tvm.values import Index, Scope, Source, Stored, Values
from pockc.ir.graph import Graph, Node
from pockc.ir.types import TensorType
from pockc.ops import OpKind


def emit_body(b: Builder, body: Graph, arguments: Sequence[Stored], result: Stored) -> None:
    """Write the code of a whole kernel."""
    if result.type.size == 0:
        return
    known: dict[str, Source] = {i.name: a for i, a in zip(body.inputs, arguments, strict=True)}
    values = Values(body, known)
    output = body.outputs[0].value
    anchors = [n for n in body.nodes if n.op in lower]
    if not anchors:
        _injective(b, values, output, result)
        return
    if rows.emit_rows(b, values, anchors, output, result):
        return
    last = anchors[-1]
    for node in anchors:
        sources = [values.source(i) for i in node.inputs]
        path = _path(body, node, output) if node is last else None
        if path is not None:
            alone = node.name == output
            sink = Store(result) if alone else Epilogue(values, node, path, output, result)
            lower[node.op](b, node, sources, sink)
            return
        target = b.stage(node.type)
        lower[node.op](b, node, sources, Store(target))
        values.known[node.name] = target
    _injective(b, values, output, result)


def _injective(b: Builder, values: Values, output: str, result: Stored) -> None:
    if pointwise(b, values, output, result):
        return

    def element(scope: Scope, index: Index) -> None:
        value = values.at(scope, output, index)
        scope.code.emit(result.memory.store(_place(scope, result, index), value))

    cuts = _cuts(values.body, result.type)
    b.injective(result.type, len(values.body.nodes), element, cuts)


def _cuts(body: Graph, result: TensorType) -> list[int]:
    """Return where along the result's innermost dimension the parts of a concat or pad begin.

    A guess from sizes: a wrong one costs a shorter vector, a missing one a serial loop.
    """
    inner = next((d for d in reversed(result.order) if result.shape[d] != 1), None)
    if inner is None:
        return []
    from_end, n = result.rank - inner, result.shape[inner]
    found: set[int] = set()
    for node in body.nodes:
        axis = node.type.rank - from_end
        if axis < 0 or node.type.shape[axis] != n:
            continue
        if node.op == "concat" and node.attrs["axis"] == axis:
            sizes = [body.type_of(i).shape[axis] for i in node.inputs]
            found.update(itertools.accumulate(sizes))
        if node.op == "pad":
            found |= {node.attrs["low"][axis], n - node.attrs["high"][axis]}
    return sorted(c for c in found if 0 < c < n)


def _place(scope: Scope, target: Stored, index: Index) -> Expr:
    where = target.offset(index)
    return scope.code.const(where) if isinstance(where, int) else where


def _expect(scope: Scope, target: Stored, index: Index) -> None:
    """Ask for a line of a tensor that is not in the cache anyway."""
    if target.type.nbytes >= FAR_BYTES:
        place = _place(scope, target, index)
        scope.code.emit(target.memory.prefetch(place, write=True))


def _expect_all(scope: Scope, result: Stored, operands: Iterable[Stored], index: Index) -> None:
    """Ask for the lines of a result and of the operands of its shape, each memory once."""
    _expect(scope, result, index)
    others = {id(o.memory): o for o in operands if o.type.shape == result.type.shape}
    others.pop(id(result.memory), None)
    for operand in others.values():
        if operand.type.nbytes >= FAR_BYTES:
            place = _place(scope, operand, index)
            scope.code.emit(operand.memory.prefetch(place))


@dataclass(frozen=True, eq=False, slots=True)
class Store:
    """Puts elements straight into memory."""

    target: Stored

    @property
    def type(self) -> TensorType:
        """The type of what is stored."""
        return self.target.type

    def put(self, scope: Scope, index: Index, value: Expr) -> None:
        """Store an element."""
        scope.code.emit(self.target.memory.store(_place(scope, self.target, index), value))

    def expect(self, scope: Scope, index: Index) -> None:
        """Ask for the line of an element."""
        _expect(scope, self.target, index)

    def merged(self, groups: Sequence[Sequence[int]]) -> Sink | None:
        """Return the same memory with fewer dimensions."""
        found = merged_space([self.target], self.target.type.shape, groups)
        return None if found is None else Store(found[0])


@dataclass(frozen=True, eq=False, slots=True)
class Epilogue:
    """Puts the elements of an anchor through the rest of the body, then into memory.

    Attributes:
        values: The body.
        anchor: The node whose elements come in.
        path: The reshapes and permutes between the anchor and the output, in order.
        output: The body's output.
        result: Where it goes.
    """

    values: Values
    anchor: Node
    path: tuple[Node, ...]
    output: str
    result: Stored

    @property
    def type(self) -> TensorType:
        """The anchor's type, in the order of the result's memory where that is known."""
        if self.path:
            return self.anchor.type
        return self.anchor.type.with_layout(self.result.type.layout)

    def put(self, scope: Scope, index: Index, value: Expr) -> None:
        """Compute the output's element from the anchor's and store it."""
        inside = scope.inner(fixed={self.anchor.name: scope.code.bind(value)})
        for node in self.path:
            index = _forward(node, self.values.type_of(node.inputs[0]).shape, index)
        found = self.values.at(inside, self.output, index)
        scope.code.emit(self.result.memory.store(_place(scope, self.result, index), found))

    def expect(self, scope: Scope, index: Index) -> None:
        """Ask for the lines of an element; after a permutation it is not worth the search."""
        leaves = elementwise_leaves(self.values, self.output, self.anchor.name)
        if not self.path and leaves is not None:
            _expect_all(scope, self.result, leaves.values(), index)

    def merged(self, groups: Sequence[Sequence[int]]) -> Sink | None:
        """Return the epilogue over fewer dimensions, if all it reads can be read so."""
        leaves = elementwise_leaves(self.values, self.output, self.anchor.name)
        if self.path or leaves is None:
            return None
        found = merged_space([self.result, *leaves.values()], self.anchor.type.shape, groups)
        if found is None:
            return None
        inside = Pointwise(self.values.body, dict(zip(leaves, found[1:], strict=True)))
        return _Merged(inside, self.anchor, self.output, found[0])


@dataclass(frozen=True, eq=False, slots=True)
class _Merged:
    """An epilogue whose every node works on one and the same merged index."""

    values: Pointwise
    anchor: Node
    output: str
    result: Stored

    @property
    def type(self) -> TensorType:
        """The merged type."""
        return self.result.type

    def put(self, scope: Scope, index: Index, value: Expr) -> None:
        """Compute the output's element and store it."""
        inside = scope.inner(fixed={self.anchor.name: scope.code.bind(value)})
        found = self.values.at(inside, self.output, index)
        scope.code.emit(self.result.memory.store(_place(scope, self.result, index), found))

    def expect(self, scope: Scope, index: Index) -> None:
        """Ask for the lines of an element and of the operands beside it."""
        _expect_all(scope, self.result, self.values.leaves.values(), index)

    def merged(self, groups: Sequence[Sequence[int]]) -> Sink | None:  # noqa: ARG002
        """Return nothing: it is merged already."""
        return None


def _path(body: Graph, anchor: Node, output: str) -> tuple[Node, ...] | None:
    """Return the reshapes and permutes from an anchor to the output.

    None if the output is not, element by element, a function of the anchor's: some element is
    used twice, or in two places.
    """
    steps: dict[str, tuple[Node, ...]] = {anchor.name: ()}
    for node in body.nodes:
        found = {steps[i] for i in node.inputs if i in steps}
        if not found:
            continue
        if len(found) > 1:
            return None
        grows = any(
            i in steps and body.type_of(i).shape != node.type.shape for i in node.inputs
        )
        if node.op in ("reshape", "permute"):
            steps[node.name] = (*found.pop(), node)
        elif (
            ops.get(node.op).kind is OpKind.ELEMENTWISE or node.op == "relayout"
        ) and not grows:
            steps[node.name] = found.pop()
        else:
            return None
    return steps.get(output)


def _forward(node: Node, shape: tuple[int, ...], index: Index) -> Index:
    """Return where a reshape or permute puts the element at an index of its operand."""
    if node.op == "permute":
        return tuple(index[d] for d in node.attrs["perm"])
    return reshaped_index(index, shape, node.type.shape)
