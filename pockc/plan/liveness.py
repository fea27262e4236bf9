"""When each block of the arena is needed.

Time 0 is when the caller fills the inputs, time i + 1 is instruction i, and one more than the
last instruction is when the caller reads the outputs. A block is alive from its first write to
its last read, both included: a kernel's operands and result are alive together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pockc.ir.roles import Batch
from pockc.plan.program import Program


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of the arena that are needed for a while.

    Attributes:
        key: The storage, or the node and the number of one of its workspaces.
        nbytes: Its size.
        start: The first time at which it is needed.
        end: The last one.
    """

    key: str | tuple[str, int]
    nbytes: int
    start: int
    end: int


def blocks_of(program: Program) -> list[Block]:
    """Return the blocks that an entry needs, in the order in which they are first needed."""
    first = {i.name: 0 for i in program.entry.graph.inputs if isinstance(i.role, Batch)}
    last = dict(first)
    for root, at in program.made_at().items():
        first.setdefault(root, at + 1)
    for at, call in enumerate(program.instructions):
        last[program.root[call.result]] = at + 1
    for root, at in program.read_at().items():
        last[root] = max(at + 1, last.get(root, 0))
    blocks = [
        Block(root, program.nbytes[root], start, last[root])
        for root, start in first.items()
        if root not in program.home
    ]
    for at, call in enumerate(program.instructions):
        for number, size in enumerate(call.workspace_bytes):
            blocks.append(Block((call.node, number), size, at + 1, at + 1))
    return sorted(blocks, key=lambda b: (b.start, str(b.key)))


def live_bytes(blocks: Sequence[Block]) -> np.ndarray:
    """Return the bytes alive at each time, empty if there are no blocks."""
    if not blocks:
        return np.zeros(0, np.int64)
    change = np.zeros(max(b.end for b in blocks) + 2, np.int64)
    for block in blocks:
        change[block.start] += block.nbytes
        change[block.end + 1] -= block.nbytes
    return np.cumsum(change)[:-1]


def lower_bound_bytes(blocks: Sequence[Block]) -> int:
    """Return the most bytes alive at one time: no placement needs fewer."""
    return int(live_bytes(blocks).max(initial=0))
