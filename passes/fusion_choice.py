"""Which values are kept in memory, and which every kernel that reads them computes again.

A value that one node reads is never kept if the two can be one kernel. A value with several
readers is kept, unless computing it again reads no more than it would read itself: an
elementwise chain, or statistics of rows, on top of one tensor that is kept anyway. So softmax
and layer norm are one sweep forward and one backward, and keep nothing but their operand.
"""

from __future__ import annotations

from dataclasses import dataclass

from pockc import ops
from pockc.ir import DType, Graph, Input, Node
from pockc.ops import OpKind
from pockc.passes.fusion_rules import FusionRules

# Longest expression that is computed more than once.
RECOMPUTED_NODES = 24
# A value so much smaller than its reader is not computed for each of the reader's elements.
BROADCAST_RATIO = 16
# Fewer elements are not worth a kernel that makes a mask.
SPARED_ELEMENTS = 1 << 10


@dataclass(frozen=True, slots=True)
class Expression:
    """What computing a value again would take.

    Attributes:
        leaves: The kept values that it reads.
        nodes: The nodes in it.
        repeatable: Whether it holds nothing that must be computed once.
        costly: Whether an op in it is dear, as exp.
        rows: Whether it holds a reduction of rows.
    """

    leaves: frozenset[str]
    nodes: frozenset[str]
    repeatable: bool
    costly: bool
    rows: bool


_KEPT = Expression(frozenset(), frozenset(), repeatable=True, costly=False, rows=False)


def kept_values(graph: Graph, rules: FusionRules) -> tuple[frozenset[str], frozenset[str]]:
    """Return the values to keep in memory, and those made of reductions of rows.

    Kernels compute what is not kept as they need it. The second set holds the values that are
    not larger than such a reduction, as the standard deviation of each row.
    """
    chooser = _Chooser(graph, rules)
    return frozenset(chooser.kept), frozenset(chooser.statistics)


def kept_expressions(graph: Graph, rules: FusionRules) -> dict[str, Expression]:
    """Return, for each node's value that is kept in memory, what computing it again takes."""
    chooser = _Chooser(graph, rules)
    return {n: e for n, e in chooser.whole.items() if n in chooser.kept}


def row_axes(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Return the axes of a reduction if they are the innermost in memory, else None."""
    operand = graph.type_of(node.inputs[0])
    axes = node.attrs["axes"]
    order = [d for d in operand.order if operand.shape[d] != 1]
    real = {a for a in axes if operand.shape[a] != 1}
    if not real or set(order[len(order) - len(real) :]) != real:
        return None
    return tuple(axes)


def row_bytes(graph: Graph, node: Node) -> int:
    """Return the bytes of one row that a reduction reads."""
    operand = graph.type_of(node.inputs[0])
    return operand.nbytes // max(1, node.type.size)


class _Chooser:
    """Decides for every node of a graph, in their order."""

    def __init__(self, graph: Graph, rules: FusionRules) -> None:
        self.graph = graph
        self.rules = rules
        self.kept = {i.name for i in graph.inputs}
        self.statistics: set[str] = set()
        self.index = {n.name: at for at, n in enumerate(graph.nodes)}
        # How many products run before each node: a measure of how far apart nodes are.
        self.products = [0]
        for node in graph.nodes:
            heavy = ops.get(node.op).kind is OpKind.CONTRACTION
            self.products.append(self.products[-1] + heavy)
        self.made: dict[str, Expression] = {i.name: _KEPT for i in graph.inputs}
        self.whole: dict[str, Expression] = {}
        for node in graph.nodes:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        expression = self._expression(node)
        if expression.rows and (
            self._is_row(node)
            or all(
                i in self.statistics
                or self.graph.type_of(i).size < node.type.size
                or self.graph.type_of(i).size == 1
                for i in node.inputs
            )
        ):
            self.statistics.add(node.name)
        self.whole[node.name] = expression
        if self._keep(node, expression):
            self.kept.add(node.name)
            expression = _KEPT
        self.made[node.name] = expression

    def _expression(self, node: Node) -> Expression:
        operands = [self.made[i] for i in node.inputs]
        leaves: frozenset[str] = frozenset().union(
            *(
                {i} if i in self.kept else e.leaves
                for i, e in zip(node.inputs, operands, strict=True)
            )
        )
        rows = self._is_row(node)
        anchor = not rows and node.op not in self.rules.injective
        return Expression(
            leaves,
            frozenset({node.name}).union(*(e.nodes for e in operands)),
            repeatable=not anchor and all(e.repeatable for e in operands),
            costly=not ops.get(node.op).cheap or any(e.costly for e in operands),
            rows=rows or any(e.rows for e in operands),
        )

    def _is_row(self, node: Node) -> bool:
        return (
            node.op in self.rules.rows
            and bool(node.attrs["keepdims"])
            and row_axes(self.graph, node) is not None
            and row_bytes(self.graph, node) <= self.rules.row_bytes
        )

    def _keep(self, node: Node, expression: Expression) -> bool:
        """Whether a value must, or had better, be in memory."""
        users = self.graph.users[node.name]
        if node.op in ("reshape", "permute", "literal"):
            return True
        if ops.get(node.op).kind is OpKind.GENERATOR and node.op in self.rules.injective:
            return node.name in self.graph.output_values
        return (
            node.name in self.graph.output_values
            or not all(self._can_read_inside(u, node) for u in users)
            or self._spares_its_operand(node, expression, users)
            or self._too_small(node, expression, users)
            or (
                not self._worth_repeating(node, expression)
                if len(users) > 1
                else not self._can_be_inside(node)
            )
        )

    def _spares_its_operand(
        self, node: Node, expression: Expression, users: tuple[Node, ...]
    ) -> bool:
        """Whether truth values are kept so that the numbers behind them need not be.

        A mask that backward needs is a quarter of the numbers that it was made from. Making
        it early pays when nobody else reads those until backward.
        """
        if node.type.dtype is not DType.B1 or not users or node.op not in self.rules.injective:
            return False
        if any(u.type.dtype is DType.B1 for u in users):
            return False
        large = [v for v in expression.leaves if self.graph.type_of(v).size == node.type.size]
        if len(large) != 1 or large[0] in self.graph.output_values:
            return False
        if isinstance(self.graph.defs[large[0]], Input) or node.type.size < SPARED_ELEMENTS:
            return False
        others = [
            self.index[u.name]
            for u in self.graph.users[large[0]]
            if u.name not in expression.nodes
        ]
        needed = min(self.index[u.name] for u in users)
        return not others or self.products[needed] - self.products[max(others) + 1] > 1

    def _can_be_inside(self, node: Node) -> bool:
        rules = self.rules
        return node.op in rules.injective | rules.contractions | rules.reductions | rules.rows

    def _can_read_inside(self, user: Node, node: Node) -> bool:
        """Whether a reader could be in one kernel with the value."""
        rules = self.rules
        if node.op in rules.contractions or (
            node.op in rules.reductions and not self._is_row(node)
        ):
            return user.op in rules.epilogue
        if user.op in {"take", "take_along"}:
            # A table that is gathered from is read at few places; an index is cheap.
            return user.inputs[0] != node.name and user.op in rules.injective
        return user.op in rules.injective | rules.reductions | rules.rows

    def _too_small(self, node: Node, expression: Expression, users: tuple[Node, ...]) -> bool:
        """Whether a reader would compute it anew for each of many elements, at some cost."""
        if expression.rows or not (expression.costly or len(expression.nodes) > 3):
            return False
        if not expression.leaves:
            return False
        return any(u.type.size >= BROADCAST_RATIO * node.type.size for u in users)

    def _worth_repeating(self, node: Node, expression: Expression) -> bool:
        if not expression.repeatable or len(expression.nodes) > RECOMPUTED_NODES:
            return False
        size = node.type.size
        if expression.rows:
            size = max((u.type.size for u in self.graph.users[node.name]), default=size)
        large = [v for v in expression.leaves if 4 * self.graph.type_of(v).size > size]
        return len(large) <= 1
