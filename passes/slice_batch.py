"""Run what comes before training a few rows of the batch at a time.

What no trained tensor depends on is inference: nothing of it is kept for backward but its end.
The images in the middle of a mobile net are larger than any cache, and with a whole batch of
them at once they decide how much memory a sparse update needs. A few rows at a time, from the
batch to the end of the frozen part, they stay in the cache, and memory holds one slice of them
(patch-based inference, Lin et al., MCUNetV2, NeurIPS 2021, §3, along the batch instead of the
image, so that nothing is computed twice).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc import ops
from pockc.ir import Attrs, Batch, Graph, Node, TensorType
from pockc.ir.verify import Invariant
from pockc.ops import OpKind
from pockc.passes.base import log
from pockc.passes.rewriting import Rewriter

MOST_SLICES = 4


@dataclass(frozen=True, slots=True)
class SliceBatch:
    """Repeat a prefix of the graph for slices of the batch.

        %h = conv2d(%x, %w)              %x0 = slice(%x) {rows 0 to 4}
        %y = conv2d(%h, %v)              %h0 = conv2d(%x0, %w)
                                   ->    %y0 = conv2d(%h0, %v)
                                         ... the same for rows 4 to 8 ...
                                         %y = concat(%y0, %y1) {axis=0}

    The prefix ends at the last value that is all of it that the rest reads. It is repeated if
    its largest value is beyond `slice_bytes`, and if what is frozen in it, which every slice
    reads anew, is small beside what it computes.

    Attributes:
        slice_bytes: The largest value of a slice is to be at most so large: a share of the
            cache.
    """

    slice_bytes: int = 4 << 20
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with its prefix in slices."""
        rows = _batch_rows(graph)
        if rows < 2:
            return graph
        prefix = _Prefix(graph, rows)
        nodes = prefix.nodes()
        if not nodes:
            return graph
        largest = max(n.type.nbytes for n in nodes)
        slices = _slice_count(rows, largest, self.slice_bytes)
        read_again = prefix.fixed_bytes(nodes) * (slices - 1)
        if slices == 1 or read_again > sum(n.type.nbytes for n in nodes):
            log.debug("slice_batch: %d nodes stay whole", len(nodes))
            return graph
        log.debug("slice_batch: %d nodes in %d slices", len(nodes), slices)
        return _repeated(graph, nodes, prefix.by_row, rows // slices, slices)


def _batch_rows(graph: Graph) -> int:
    """Return the rows of the largest batch input, 0 if there is none."""
    types = [i.type for i in graph.inputs if isinstance(i.role, Batch) and i.type.shape]
    return max(types, key=lambda t: t.nbytes).shape[0] if types else 0


def _slice_count(rows: int, largest_bytes: int, slice_bytes: int) -> int:
    """Return the least number of equal slices that are small enough, as far as there are."""
    choices = [n for n in range(1, min(rows, MOST_SLICES) + 1) if rows % n == 0]
    enough = [n for n in choices if largest_bytes <= n * slice_bytes]
    return enough[0] if enough else choices[-1]


class _Prefix:
    """Which values have one row for each row of the batch, and are made from frozen ones.

    Attributes:
        by_row: Values whose row i depends on row i of the batch inputs alone.
    """

    def __init__(self, graph: Graph, rows: int) -> None:
        self.graph = graph
        self.rows = rows
        self.by_row = {
            i.name
            for i in graph.inputs
            if isinstance(i.role, Batch) and i.type.shape[:1] == (rows,)
        }
        varying = {i.name for i in graph.inputs if isinstance(i.role, Batch)}
        self._fixed = {i.name for i in graph.inputs} - varying
        self._order: list[Node] = []
        for node in graph.nodes:
            if self._is_fixed(node):
                self._fixed.add(node.name)
            elif self._is_by_row(node):
                self.by_row.add(node.name)
                self._order.append(node)

    def nodes(self) -> list[Node]:
        """Return the longest prefix of which the rest reads one value only."""
        last = 0
        readers: dict[str, int] = {}
        for count, node in enumerate(self._order, 1):
            for value in set(node.inputs) & readers.keys():
                readers[value] -= 1
                if not readers[value]:
                    del readers[value]
            users = {u.name for u in self.graph.users[node.name]}
            readers[node.name] = len(users) + (node.name in self.graph.output_values)
            if len(readers) == 1:
                last = count
        return self._order[:last]

    def fixed_bytes(self, nodes: Iterable[Node]) -> int:
        """Return the bytes of all that nodes read beside rows of the batch."""
        read = {i for n in nodes for i in n.inputs if i in self._fixed}
        return sum(self.graph.type_of(i).nbytes for i in read)

    def _is_fixed(self, node: Node) -> bool:
        return node.op != "random_uniform" and all(i in self._fixed for i in node.inputs)

    def _is_by_row(self, node: Node) -> bool:
        known = all(i in self.by_row or i in self._fixed for i in node.inputs)
        rule = _RULES.get(node.op) or _KIND_RULES.get(ops.get(node.op).kind)
        if not known or rule is None or node.type.shape[:1] != (self.rows,):
            return False
        operands = [(i in self.by_row, self.graph.type_of(i)) for i in node.inputs]
        return rule(node, operands)


Operands = list[tuple[bool, TensorType]]
Rule = Callable[[Node, Operands], bool]
"""Whether row i of a result needs row i of those operands that have rows, and nothing else of
them. Operands are (has rows, type)."""


def _elementwise(node: Node, operands: Operands) -> bool:
    rank = node.type.rank
    return all(
        t.rank == rank if by_row else t.rank < rank or t.shape[0] == 1 for by_row, t in operands
    )


def _first_operand(node: Node, operands: Operands) -> bool:  # noqa: ARG001
    return operands[0][0] and not any(by_row for by_row, _ in operands[1:])


def _product(node: Node, operands: Operands) -> bool:
    (left, a), (right, b) = operands
    if left and right:
        return a.rank == b.rank == node.type.rank > 2
    if left:
        return a.rank == node.type.rank and (b.rank == 2 or b.shape[0] == 1)
    return b.rank == node.type.rank > 2 and (a.rank == 2 or a.shape[0] == 1)


def _whole_rows(node: Node, operands: Operands) -> bool:
    a = node.attrs
    return operands[0][0] and (a["starts"][0], a["steps"][0]) == (0, 1)


def _gather(node: Node, operands: Operands) -> bool:
    (table, _), (index, _) = operands
    axis = node.attrs["axis"]
    return (index and not table and axis == 0) or (table and not index and axis > 0)


_KIND_RULES: dict[OpKind, Rule] = {
    OpKind.ELEMENTWISE: _elementwise,
    OpKind.POOL: _first_operand,
}
_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min"), lambda node, _: 0 not in node.attrs["axes"]
    ),
    "conv2d": _first_operand,
    "matmul": _product,
    "reshape": lambda node, operands: operands[0][1].shape[:1] == node.type.shape[:1],
    "broadcast_to": _elementwise,
    "relayout": _first_operand,
    "permute": lambda node, _: node.attrs["perm"][0] == 0,
    "slice": _whole_rows,
    "pad": lambda node, _: (node.attrs["low"][0], node.attrs["high"][0]) == (0, 0),
    "concat": lambda node, operands: node.attrs["axis"] != 0 and all(r for r, _ in operands),
    "take": _gather,
}
_SHAPE_ATTRS = {"reshape": "shape", "broadcast_to": "shape", "slice": "stops"}
"""Attributes that hold the number of rows, first."""


def _repeated(
    graph: Graph, nodes: list[Node], by_row: set[str], height: int, slices: int
) -> Graph:
    """Return the graph with nodes replaced by slices of them, and a concat of their last."""
    inside = {n.name for n in nodes}
    inputs = [i for i in graph.inputs if i.name in by_row]
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        if node.name not in inside:
            rewriter.append(node)
        if node is not nodes[-1]:
            continue
        ends = []
        for number in range(slices):
            names = {
                i.name: _rows_of(rewriter, i.name, number * height, height)
                for i in inputs
                if any(u.name in inside for u in graph.users[i.name])
            }
            for old in nodes:
                operands = [names.get(i, i) for i in old.inputs]
                attrs = _with_rows(old, height)
                names[old.name] = rewriter.add(old.op, operands, attrs, old.source, old.name)
            ends.append(names[node.name])
        whole = rewriter.make("concat", ends, Attrs({"axis": 0}), source=node.source)
        rewriter.append(replace(whole, name=node.name))
    return rewriter.finish()


def _rows_of(rewriter: Rewriter, value: str, first: int, height: int) -> str:
    shape = rewriter.type_of(value).shape
    return rewriter.emit(
        "slice",
        value,
        starts=(first, *(0 for _ in shape[1:])),
        stops=(first + height, *shape[1:]),
        steps=(1,) * len(shape),
        name=f"{value}_rows",
    )


def _with_rows(node: Node, height: int) -> Attrs:
    """Return a node's attributes for so many rows."""
    key = _SHAPE_ATTRS.get(node.op)
    if key is None:
        return node.attrs
    return Attrs({**node.attrs, key: (height, *node.attrs[key][1:])})
