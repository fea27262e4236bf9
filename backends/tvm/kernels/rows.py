"""Row fusion: several reductions over the same axes and what lies between them, row by row.

Softmax, layer norm, RMS norm, their gradients, cross-entropy per row: the row stays in the
first-level cache while it is read again. A value that is dear to compute and needed in more
than one sweep over the row is kept in a buffer of one row per thread; a cheap one is computed
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pockc import ops
from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.pointwise import DEAR, memory_order
from pockc.backends.tvm.sums import loops, monoid, row_total
from pockc.backends.tvm.tir import Expr, Memory
from pockc.backends.tvm.values import Index, Scope, Stored, Values, inline
from pockc.ir.graph import Node
from pockc.ir.types import TensorType
from pockc.ops import OpKind


def emit_rows(
    b: Builder, values: Values, anchors: Sequence[Node], output: str, result: Stored
) -> bool:
    """Write a body of reductions over rows as one sweep per row; return whether it is one."""
    found = _rows_of(values, anchors, result)
    if found is None:
        return False
    _Sweeps(b, values, result, output, found).emit()
    return True


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the rows of a body are.

    Attributes:
        shape: The shape of a whole tensor.
        axes: The axes along a row, in the order of memory.
        kept: The other axes, in the order of memory.
        whole: Whether the output is a whole tensor, not one number per row.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    kept: tuple[int, ...]
    whole: bool


def _rows_of(values: Values, anchors: Sequence[Node], result: Stored) -> _Rows | None:
    if any(n.op not in ("reduce_sum", "reduce_max", "reduce_min") for n in anchors):
        return None
    first = values.type_of(anchors[0].inputs[0])
    shape, axes = first.shape, _axes(anchors[0], first)
    for node in anchors:
        operand = values.type_of(node.inputs[0])
        if operand.shape != shape or _axes(node, operand) != axes:
            return None
    order = tuple(d for d in memory_order(values.source(anchors[0].inputs[0])) if shape[d] != 1)
    along = tuple(d for d in order if d in axes)
    kept = tuple(d for d in order if d not in axes)
    if not along or order[-len(along) :] != along:
        return None
    whole = result.type.shape == shape
    if len(anchors) == 1 and not whole:
        return None  # one reduction: kernels/reduce.py does it, in parts if it is long
    if not whole and tuple(n for n in result.type.shape if n != 1) != tuple(
        shape[d] for d in sorted(kept)
    ):
        return None
    rows = _Rows(shape, along, kept, whole)
    return rows if _all_fit(values, anchors, rows) else None


def _axes(node: Node, operand: TensorType) -> tuple[int, ...]:
    return tuple(sorted(a % operand.rank for a in node.attrs["axes"] if operand.shape[a] != 1))


def _all_fit(values: Values, anchors: Sequence[Node], rows: _Rows) -> bool:
    """Return whether what follows a reduction is read at its own row only."""
    dependent = {n.name for n in anchors}
    numbers = tuple(rows.shape[d] for d in sorted(rows.kept))
    for node in values.body.nodes:
        if node.name in dependent or not any(i in dependent for i in node.inputs):
            continue
        dependent.add(node.name)
        elementwise = ops.get(node.op).kind is OpKind.ELEMENTWISE or node.op == "relayout"
        per_row = tuple(n for n in node.type.shape if n != 1) == numbers
        if elementwise and (per_row or node.type.shape == rows.shape):
            continue
        if node.op == "broadcast_to" and node.type.shape == rows.shape:
            continue
        if node.op == "reshape" and per_row:
            continue
        return False
    return True


@dataclass(slots=True)
class _Sweeps:
    """The sweeps over each row: one per reduction, and one for the output."""

    b: Builder
    values: Values
    result: Stored
    output: str
    rows: _Rows
    staged: dict[str, Memory] = field(default_factory=dict)

    def emit(self) -> None:
        """Write the rows, divided between the threads."""
        b, shape = self.b, self.rows.shape
        count = math.prod(shape[d] for d in self.rows.kept)
        length = math.prod(shape[d] for d in self.rows.axes)
        work = 8 * count * length
        keep = self._worth_keeping()
        parts = b.part_count(count, work)
        for name in keep:
            self.staged[name] = b.workspace(parts * length, self.values.type_of(name).dtype)
        with b.parts(count, work) as (part, first, rounds), b.code.loop(rounds) as i:
            index = b.unravel(b.code.bind(first + i), [shape[d] for d in self.rows.kept])
            self._row(index, part * length)

    def _worth_keeping(self) -> list[str]:
        """Return the dear values that more than one sweep needs, in order."""
        body = self.values.body
        sweeps: dict[str, set[int]] = {}
        reductions = [n for n in body.nodes if n.name in self._anchors()]
        roots = [n.inputs[0] for n in reductions] + [self.output] * self.rows.whole
        for sweep, root in enumerate(roots):
            open_values = [root]
            while open_values:
                name = open_values.pop()
                node = body.node(name)
                if sweep in sweeps.setdefault(name, set()) or node is None:
                    continue
                sweeps[name].add(sweep)
                if name not in self._anchors():
                    open_values += node.inputs
        return [
            n.name
            for n in body.nodes
            if n.op in DEAR
            and n.type.shape == self.rows.shape
            and len(sweeps.get(n.name, ())) > 1
        ]

    def _anchors(self) -> set[str]:
        return {n.name for n in self.values.body.nodes if n.op.startswith("reduce_")}

    def _row(self, kept: Sequence[Expr], start: Expr) -> None:
        b, values = self.b, self.values
        scope = b.scope()
        filled: set[str] = set()
        for node in values.body.nodes:
            if node.op.startswith("reduce_"):
                value = self._total(scope, node, kept, start, filled)
                index = self._row_index(kept, node.type.shape)
                values.remember(scope, node.name, index, value)
            elif self._per_row(node) and self._after_reduction(node.name):
                values.at(scope, node.name, self._row_index(kept, node.type.shape))
        if not self.rows.whole:
            index = self._row_index(kept, self.result.type.shape)
            self._store(scope, index)
            return
        ranges = [(0, self.rows.shape[d]) for d in self.rows.axes]
        with loops(b, ranges[:-1]) as outer:

            def element(inner: Scope, i: Expr) -> None:
                ks = [*outer, i]
                self._use_staged(inner, filled, ks, start)
                self._store(inner, self._index(kept, ks))

            b.vector(ranges[-1][1], b.lanes(self.result.type.dtype), element, scope)

    def _total(
        self, scope: Scope, node: Node, kept: Sequence[Expr], start: Expr, filled: set[str]
    ) -> Expr:
        """Return a reduction of the row, filling buffers on the way."""
        ranges = [(0, self.rows.shape[d]) for d in self.rows.axes]
        new = [n for n in self.staged if n not in filled and self._feeds(n, node.inputs[0])]
        dtype = node.type.dtype

        def term(inner: Scope, outer: Sequence[Expr], i: Expr) -> Expr:
            ks = [*outer, i]
            self._use_staged(inner, filled, ks, start)
            index = self._index(kept, ks)
            value = self.values.at(inner, node.inputs[0], index)
            for name in new:
                kept_value = self.values.at(inner, name, index)
                where = start + self._along(ks)
                inner.code.emit(self.staged[name].store(where, kept_value))
            return value

        total = row_total(self.b, scope, monoid(node.op, dtype), ranges[:-1], ranges[-1], term)
        filled.update(new)
        return total

    def _use_staged(
        self,
        scope: Scope,
        filled: set[str],
        ks: Sequence[Expr],
        start: Expr,
    ) -> None:
        """Let a block read the buffered values instead of computing them."""
        fixed = {
            n: scope.code.bind(self.staged[n].load(start + self._along(ks)))
            for n in sorted(filled)
        }
        scope.fixed = {**scope.fixed, **fixed}

    def _store(self, scope: Scope, index: Index) -> None:
        value = self.values.at(scope, self.output, index)
        where = self.result.offset(index)
        where = scope.code.const(where) if isinstance(where, int) else where
        scope.code.emit(self.result.memory.store(where, value))

    def _feeds(self, name: str, root: str) -> bool:
        """Return whether a value is computed within the sweep of `root`."""
        if name == root:
            return True
        node = self.values.body.node(root)
        if node is None or node.op.startswith("reduce_"):
            return False
        return any(self._feeds(name, i) for i in node.inputs)

    def _after_reduction(self, name: str) -> bool:
        node = self.values.body.node(name)
        if node is None:
            return False
        return node.op.startswith("reduce_") or any(map(self._after_reduction, node.inputs))

    def _per_row(self, node: Node) -> bool:
        numbers = tuple(self.rows.shape[d] for d in sorted(self.rows.kept))
        return (
            node.op in inline
            and tuple(n for n in node.type.shape if n != 1) == numbers
            and node.type.shape != self.rows.shape
        )

    def _row_index(self, kept: Sequence[Expr], shape: Sequence[int]) -> Index:
        """Return the index of a row's number in a tensor of one number per row."""
        by_dim = dict(zip(self.rows.kept, kept, strict=True))
        rest = iter(by_dim[d] for d in sorted(self.rows.kept))
        return tuple(0 if n == 1 else next(rest) for n in shape)

    def _index(self, kept: Sequence[Expr], ks: Sequence[Expr]) -> Index:
        """Return the index of an element of a row in a whole tensor."""
        index: list[Expr] = [0] * len(self.rows.shape)
        for d, i in zip(self.rows.kept, kept, strict=True):
            index[d] = i
        for d, i in zip(self.rows.axes, ks, strict=True):
            index[d] = i
        return tuple(index)

    def _along(self, ks: Sequence[Expr]) -> Expr:
        """Return the place of an element in the buffer of its row."""
        total: Expr = 0
        for d, i in zip(self.rows.axes, ks, strict=True):
            total = total * self.rows.shape[d] + i
        return total
