"""Put nodes into an order that needs less memory.

Zhu et al., PockEngine, MICRO 2023, §3.2: an update runs as soon as its gradient is there and
the old value has been read for the last time, so that few gradients are alive together. The
same rule serves everything else: what frees at least as much as it takes runs at once.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pockc.ir import Graph, Node
from pockc.ir.verify import Invariant
from pockc.passes.base import log
from pockc.passes.memory import Storages


@dataclass(frozen=True, slots=True)
class Reorder:
    """Run early what frees memory, and everything else in the order that was there.

    The new order is taken if its peak is lower, or its sum over all nodes at an equal peak;
    never one whose peak is higher. Readers of a piece of state come before its new value
    wherever they can, so that it can be written in place.

    Attributes:
        anchors: Whether kernels around a contraction or reduction can write in place.
    """

    anchors: bool = False
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = ()

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph in the better of two orders."""
        storages = Storages(graph, anchors=self.anchors)
        old = list(graph.nodes)
        old_cost = _cost(storages, old)
        new = _Scheduler(storages).order()
        new_cost = _cost(storages, new)
        log.debug("reorder: peak and sum %s -> %s", old_cost, new_cost)
        return graph.replace(nodes=tuple(new)) if new_cost < old_cost else graph


def _cost(storages: Storages, order: list[Node]) -> tuple[int, int, int]:
    live = list(storages.live_bytes(order))
    return max(live, default=0), _late_reads(storages, order), sum(live)


def _late_reads(storages: Storages, order: list[Node]) -> int:
    """Return how many pieces of state are read after their new value was made."""
    at = {n.name: i for i, n in enumerate(order)}
    late = 0
    for value, home in storages.state.items():
        made = at.get(value)
        if made is not None:
            late += any(at[r] > made for r in storages.old_readers[home])
    return late


class _Scheduler:
    """List scheduling with two heaps: what shrinks memory, and the rest."""

    def __init__(self, storages: Storages) -> None:
        self.storages = storages
        self.nodes = storages.graph.nodes
        self.by_name = {n.name: n for n in self.nodes}
        self.index = {n.name: i for i, n in enumerate(self.nodes)}
        self.left = {root: set(names) for root, names in storages.readers.items()}
        self.freed: dict[str, int] = defaultdict(int)
        self.waits: dict[str, int] = {}
        self.wakes: dict[str, list[str]] = defaultdict(list)
        self.holds: dict[str, int] = defaultdict(int)
        self.frees: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes:
            before = {i for i in node.inputs if i in self.by_name}
            self.waits[node.name] = len(before)
            for name in sorted(before):
                self.wakes[name].append(node.name)
        self.small: list[tuple[int, str]] = []
        self.rest: list[tuple[int, str]] = []
        self.ready: set[str] = set()
        self.done: set[str] = set()
        self.held: dict[str, None] = {}
        self._add_state_order()
        for root in self.left:
            self._note_last_reader(root)

    def _add_state_order(self) -> None:
        """Let the new value of a piece of state wait for the readers of the old one."""
        after = _after_updates(self.storages)
        for bit, (value, home) in enumerate(sorted(self.storages.state.items())):
            if value not in self.by_name:
                continue
            readers = self.storages.old_readers[home]
            if any(after[r] >> bit & 1 for r in readers if r != value):
                continue
            for reader in sorted(readers - {value}):
                self.holds[value] += 1
                self.frees[reader].append(value)

    def _note_last_reader(self, root: str) -> str | None:
        """Credit the last reader of a storage with its bytes."""
        if len(self.left[root]) != 1 or root in self.storages.lasting:
            return None
        reader = next(iter(self.left[root]))
        self.freed[reader] += self.storages.nbytes[root]
        return reader

    def _shrinks(self, name: str) -> bool:
        own = self.storages.root[name] == name
        taken = self.storages.nbytes[name] if own else 0
        return taken <= self.freed[name]

    def order(self) -> list[Node]:
        """Return the order.

        Two updates may each read what the other replaces. Then the first of them goes on, and
        the old value of its tensor must be kept for the second.
        """
        order: list[Node] = []
        for node in self.nodes:
            if not self.waits[node.name]:
                self._arrive(node.name)
        while self.small or self.rest or self.held:
            if not (self.small or self.rest):
                self._wake(next(iter(self.held)))
            name = heapq.heappop(self.small or self.rest)[1]
            if name not in self.done:
                self.done.add(name)
                self.held.pop(name, None)
                order.append(self.by_name[name])
                self._leave(name)
        return order

    def _wake(self, name: str) -> None:
        """Put a node that can run on one of the heaps."""
        self.ready.add(name)
        heap = self.small if self._shrinks(name) else self.rest
        heapq.heappush(heap, (self.index[name], name))

    def _arrive(self, name: str) -> None:
        """Note that the operands of a node are there."""
        if self.holds[name]:
            self.held[name] = None
        else:
            self._wake(name)

    def _leave(self, name: str) -> None:
        """Count a node as done, and let go on what waited for it."""
        for reader in self._finish(name):
            if reader in self.ready and reader not in self.done and self._shrinks(reader):
                heapq.heappush(self.small, (self.index[reader], reader))
        for later in self.wakes[name]:
            self.waits[later] -= 1
            if not self.waits[later]:
                self._arrive(later)
        for update in self.frees[name]:
            self.holds[update] -= 1
            if not self.holds[update] and update in self.held:
                del self.held[update]
                self._wake(update)

    def _finish(self, name: str) -> list[str]:
        """Count a node's reads as done; return the nodes that now free something."""
        last = []
        for root in sorted({self.storages.root[i] for i in self.by_name[name].inputs}):
            if name in self.left[root]:
                self.left[root].discard(name)
                reader = self._note_last_reader(root)
                if reader is not None:
                    last.append(reader)
        return last


def _after_updates(storages: Storages) -> Mapping[str, int]:
    """Return for each node a set, as bits, of the new pieces of state that it depends on."""
    bit = {value: 1 << at for at, value in enumerate(sorted(storages.state))}
    after: dict[str, int] = {}
    for node in storages.graph.nodes:
        bits = bit.get(node.name, 0)
        for name in node.inputs:
            bits |= after.get(name, 0)
        after[node.name] = bits
    return after
