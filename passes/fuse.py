"""Make one kernel of several nodes.

What a value costs is mostly the memory it goes through: a kernel that also does what comes
after it saves a write and a read, and a buffer. A kernel has one result; a group grows from
that result towards its operands, taking in what `fusion_choice` decided not to keep and what
`fusion_rules` allows. Everything in a group leads to its result only, so there are no cycles.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pockc import ops
from pockc.ir import (
    Attrs,
    Batch,
    BufferUpdate,
    Graph,
    Input,
    Node,
    Output,
    Prediction,
    StateUpdate,
    Update,
)
from pockc.ir.verify import Invariant, no_dead_nodes, views_only
from pockc.ops import OpKind
from pockc.passes.base import log
from pockc.passes.fusion_choice import kept_values, row_axes, row_bytes
from pockc.passes.fusion_rules import CONTRACTIONS, FusionRules


@dataclass(frozen=True, slots=True)
class Fuse:
    """Group nodes into `fused` ones, as far as a backend's rules allow.

    %y = matmul(%x, %w)             %h = fused(%x, %w, %b) {body=graph fused {
    %z = add(%y, %b)        ->        ... matmul, add, maximum ...
    %h = maximum(%z, %0)            }}
    """

    rules: FusionRules = FusionRules()  # noqa: RUF009  immutable
    requires: ClassVar[tuple[Invariant, ...]] = (views_only,)
    ensures: ClassVar[tuple[Invariant, ...]] = (views_only, no_dead_nodes)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with fused nodes."""
        grower = _Grower(graph, self.rules)
        made: list[Node] = []
        changed = False
        needed = set(graph.output_values)
        for node in reversed(graph.nodes):
            if node.name not in needed:
                changed = True
                continue
            group = grower.grow(node)
            result = _fused(graph, group) if len(group.members) > 1 else node
            changed |= result is not node
            made.append(result)
            needed.update(result.inputs)
        return graph.replace(nodes=tuple(reversed(made))) if changed else graph


@dataclass(slots=True)
class _Group:
    """A kernel under construction.

    Attributes:
        root: The node whose value is the result.
        members: Its nodes by name, the root included.
        operands: The values it reads that are not members.
        anchor: The contraction or reduction it is built around.
        rows: For a row kernel, the type of what is reduced and the axes.
        aligned: Members computed at the place of the result's element.
        gathered: Members computed at other places, as below a slice or a gather.
        below: Members computed inside the loop of the anchor.
    """

    root: Node
    members: dict[str, Node] = field(default_factory=dict)
    operands: set[str] = field(default_factory=set)
    anchor: Node | None = None
    rows: tuple[object, ...] | None = None
    aligned: set[str] = field(default_factory=set)
    gathered: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)


class _Grower:
    def __init__(self, graph: Graph, rules: FusionRules) -> None:
        self.graph = graph
        self.rules = rules
        self.kept, self.statistics = kept_values(graph, rules)
        self.index = {n.name: at for at, n in enumerate(graph.nodes)}
        written = (Update, StateUpdate, BufferUpdate)
        self.updates = {o.value for o in graph.outputs if isinstance(o.role, written)}

    def grow(self, root: Node) -> _Group:
        """Return the largest legal group of a result."""
        group = _Group(root)
        self._start(group)
        waiting: list[tuple[int, str]] = []
        if self._can_be_root(root):
            self._offer(root, waiting)
        seen: set[str] = set()
        while waiting:
            name = heapq.heappop(waiting)[1]
            if name in seen:
                continue
            seen.add(name)
            node = self.graph.node(name)
            if node is not None and self._take(group, node):
                group.operands = (group.operands - {name}) | set(node.inputs)
                self._offer(node, waiting)
        return group

    def _can_be_root(self, root: Node) -> bool:
        rules = self.rules
        return root.op in rules.injective | rules.epilogue | rules.reductions | rules.rows

    def _start(self, group: _Group) -> None:
        root = group.root
        group.members[root.name] = root
        group.operands = set(root.inputs)
        group.aligned.add(root.name)
        if root.op in self.rules.reductions | self.rules.rows:
            group.anchor = root
            group.rows = self._row_key(root)

    def _offer(self, node: Node, waiting: list[tuple[int, str]]) -> None:
        """Put the operands of a member on the heap: readers come before what they read."""
        for value in node.inputs:
            heapq.heappush(waiting, (-self.index.get(value, -1), value))

    def _row_key(self, node: Node) -> tuple[object, ...] | None:
        """Return what reductions of one row kernel have in common, None if it is none."""
        axes = row_axes(self.graph, node)
        if axes is None or node.op not in self.rules.rows:
            return None
        if row_bytes(self.graph, node) > self.rules.row_bytes:
            return None
        operand = self.graph.type_of(node.inputs[0])
        return operand.shape, operand.order, axes

    def _take(self, group: _Group, node: Node) -> bool:
        """Take a node in if that is wanted and legal."""
        readers = [u for u in self.graph.users[node.name] if u.name in group.members]
        if node.name in self.kept:
            return False
        operands = (group.operands - {node.name}) | set(node.inputs)
        if len(operands) > max(self.rules.operands, len(group.operands)):
            return False
        if any(u.op in self.rules.contractions for u in readers):
            return False
        aligned = _aligned(group, node, readers)
        gathered = any(
            u.name in group.gathered or ops.get(u.op).kind in (OpKind.MOVE, OpKind.INDEX)
            for u in readers
        )
        if self._is_statistic(group, node, gathered=gathered):
            return False
        below = any(u is group.anchor or u.name in group.below for u in readers)
        if node.op in self.rules.contractions:
            legal = self._take_contraction(group, node, aligned=aligned and not below)
        elif node.op in self.rules.reductions | self.rules.rows:
            legal = not gathered and self._take_reduction(
                group, node, readers, aligned=aligned and not below
            )
        else:
            legal = node.op in self.rules.injective
        if legal:
            group.members[node.name] = node
            for flag, names in (
                (aligned, group.aligned),
                (gathered, group.gathered),
                (below, group.below),
            ):
                if flag:
                    names.add(node.name)
        return legal

    def _is_statistic(self, group: _Group, node: Node, *, gathered: bool) -> bool:
        """Whether a value is a number per row, in a kernel that cannot sum rows itself.

        It is better read than made from sums that are read.
        """
        foreign = gathered or (group.anchor is not None and group.rows is None)
        return foreign and node.op not in self.rules.rows and node.name in self.statistics

    def _anchor_allowed(self, group: _Group) -> bool:
        """An update is made in place, which only some kernels with an anchor can do."""
        return self.rules.update_in_anchor or group.root.name not in self.updates

    def _take_contraction(self, group: _Group, node: Node, *, aligned: bool) -> bool:
        legal = (
            group.anchor is None
            and aligned
            and self._anchor_allowed(group)
            and self._simple_path(group)
        )
        if legal:
            group.anchor = node
        return legal

    def _simple_path(self, group: _Group) -> bool:
        """Whether what is computed after the anchor is allowed to be."""
        return all(group.members[n].op in self.rules.epilogue for n in group.aligned)

    def _take_reduction(
        self, group: _Group, node: Node, readers: list[Node], *, aligned: bool
    ) -> bool:
        if not self._anchor_allowed(group):
            return False
        key = self._row_key(node)
        if key is not None and self._fits_rows(group, node, key, readers, aligned=aligned):
            group.anchor = group.anchor or node
            group.rows = key
            return True
        legal = (
            group.anchor is None
            and aligned
            and node.op in self.rules.reductions
            and self._simple_path(group)
        )
        if legal:
            group.anchor = node
            group.rows = None
        return legal

    def _fits_rows(
        self,
        group: _Group,
        node: Node,
        key: tuple[object, ...],
        readers: list[Node],
        *,
        aligned: bool,
    ) -> bool:
        if group.anchor is not None and group.rows != key:
            return False
        if not all(
            m.op in self.rules.injective | self.rules.rows for m in group.members.values()
        ):
            return False
        whole, reduced = self.graph.type_of(node.inputs[0]), node.type
        if group.root.type.shape == whole.shape:
            if group.root.type.order != whole.order or not node.attrs["keepdims"]:
                return False
        elif group.anchor is None and not aligned:
            return False
        shapes = (whole.shape, reduced.shape)
        return all(u.type.shape in shapes or u.op in self.rules.rows for u in readers)


def _aligned(group: _Group, node: Node, readers: list[Node]) -> bool:
    """Whether a node is computed at the place of the result's element, and only there."""
    root = group.root.type
    return (node.type.shape, node.type.order) == (root.shape, root.order) and all(
        u.name in group.aligned and ops.get(u.op).kind is OpKind.ELEMENTWISE for u in readers
    )


def _fused(graph: Graph, group: _Group) -> Node:
    """Return the node of a group; names inside are counted: equal kernels have equal text."""
    order = _in_order(group.members)
    names: dict[str, str] = {}
    inputs: list[Input] = []
    for node in order:
        for value in node.inputs:
            if value not in group.members and value not in names:
                names[value] = f"i{len(inputs)}"
                role = Batch(str(len(inputs)))
                inputs.append(Input(names[value], graph.type_of(value), role))
    body = []
    for at, node in enumerate(order):
        names[node.name] = f"t{at}"
        operands = tuple(names[i] for i in node.inputs)
        body.append(replace(node, name=names[node.name], inputs=operands))
    root = group.root
    outputs = (Output(names[root.name], Prediction("0")),)
    inner = Graph("fused", tuple(inputs), tuple(body), outputs)
    operands = tuple(v for v in names if v not in group.members)
    log.debug("fuse: %%%s of %s", root.name, ", ".join(n.op for n in order))
    # The product is what takes the time: errors and profiles name its line.
    products = (n.source for n in order if n.op in CONTRACTIONS and n.source is not None)
    source = next(products, root.source)
    return Node(root.name, "fused", operands, Attrs({"body": inner}), root.type, source)


def _in_order(members: Mapping[str, Node]) -> list[Node]:
    """Return nodes operands first, in an order that depends on their structure alone."""
    placed: dict[str, Node] = {}
    root = next(iter(members.values()))
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node.name in placed:
            continue
        if ready:
            placed[node.name] = node
            continue
        stack.append((node, True))
        stack += [
            (members[i], False)
            for i in reversed(node.inputs)
            if i in members and i not in placed
        ]
    return list(placed.values())
