"""Offsets: never overlapping, close to the lower bound, always the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockc.plan.arena import Placement, place
from pockc.plan.liveness import Block, live_bytes, lower_bound_bytes
from pockc.plan.types import ALIGN_BYTES

properties = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def block_lists(draw: st.DrawFn) -> list[Block]:
    count = draw(st.integers(0, 25))
    blocks = []
    for i in range(count):
        start = draw(st.integers(0, 20))
        blocks.append(
            Block(f"b{i}", draw(st.integers(0, 4000)), start, start + draw(st.integers(0, 8)))
        )
    return blocks


def overlaps(blocks: list[Block], placement: Placement) -> list[tuple[str, str]]:
    found = []
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[:i]):
            together = a.start <= b.end and b.start <= a.end
            low, high = placement.offsets[i], placement.offsets[j]
            apart = low + a.nbytes <= high or high + b.nbytes <= low
            if together and not apart:
                found.append((str(a.key), str(b.key)))
    return found


@properties
@given(blocks=block_lists())
def test_blocks_that_live_together_do_not_overlap(blocks: list[Block]) -> None:
    placement = place(blocks)
    assert not overlaps(blocks, placement)
    assert all(o % ALIGN_BYTES == 0 for o in placement.offsets)
    top = max((o + b.nbytes for o, b in zip(placement.offsets, blocks, strict=True)), default=0)
    assert lower_bound_bytes(blocks) <= top <= placement.nbytes
    assert place(blocks) == placement


def test_the_check_for_overlaps_sees_one() -> None:
    blocks = [Block("a", 100, 0, 2), Block("b", 100, 2, 3)]
    assert overlaps(blocks, Placement((0, 64), 192)) == [("b", "a")]
    assert not overlaps(blocks, Placement((0, 128), 256))


def test_bytes_alive_count_both_ends() -> None:
    blocks = [Block("a", 10, 0, 1), Block("b", 5, 1, 2)]
    assert live_bytes(blocks).tolist() == [10, 15, 5]
    assert lower_bound_bytes([]) == 0


def test_a_hole_is_filled_where_largest_first_alone_would_grow() -> None:
    # 3 units of memory suffice, but not if every block goes to the lowest free offset in time.
    unit = 1024
    blocks = [
        Block("a", unit, 0, 1),
        Block("b", unit, 0, 3),
        Block("c", unit, 0, 1),
        Block("d", 2 * unit, 2, 3),
    ]
    assert place(blocks).nbytes == 3 * unit


@pytest.mark.parametrize("seed", range(4))
def test_training_steps_come_close_to_the_lower_bound(seed: int) -> None:
    blocks = training_like(layers=25, seed=seed)
    assert place(blocks).nbytes <= 1.05 * lower_bound_bytes(blocks)


def training_like(layers: int, seed: int) -> list[Block]:
    """Blocks of a forward pass that saves, and a backward pass that gives back in turn."""
    rng = random.Random(seed)
    blocks: list[tuple[int, int, int]] = []
    saved: list[tuple[int, int]] = []
    time = 1
    for _ in range(6 * layers):
        size = rng.choice([256, 1024, 4096, 16384]) * rng.randint(1, 100)
        if rng.random() < 0.5:
            saved.append((size, time))
        else:
            blocks.append((size, time, time + rng.randint(1, 4)))
        time += 1
    for size, start in reversed(saved):
        for _ in range(rng.randint(1, 3)):
            nbytes = rng.choice([256, 4096]) * rng.randint(1, 400)
            blocks.append((nbytes, time, time + rng.randint(0, 4)))
            time += 1
        blocks.append((size, start, time + rng.randint(0, 3)))
    return [Block(f"b{i}", *block) for i, block in enumerate(blocks)]
