"""What a budget counts is what the process that trains takes, or a little more."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pockc import driver, runtime
from pockc.search.cost import cost_of
from tests import nets
from tests.search.sessions import session_of

pytestmark = [pytest.mark.needs_torch, pytest.mark.needs_tvm]
THREADS = 3
OPTIONS = driver.Options(threads=THREADS)
_LOAD, _WRITABLE = 1, 2


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, driver.Planned, int]:
    """An artifact, its plan, and what a budget counts of it."""
    _, session = session_of("resnet")
    path = tmp_path_factory.mktemp("budget") / "resnet.pock"
    driver.build_captured(session.captured, session.base, path, OPTIONS)
    planned = driver.plan_captured(session.captured, session.base, OPTIONS)
    return path, planned, cost_of(planned, session.times).memory_bytes


def pock_run(path: Path, verb: str, *arguments: object) -> list[dict[str, object]]:
    command = [path / "pock-run", verb, path, "--threads", THREADS, *arguments]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def private(events: list[dict[str, object]]) -> int:
    return max(int(str(e["private_bytes"])) for e in events if "private_bytes" in e)


def test_training_without_python_stays_within_what_the_budget_counted(
    built: tuple[Path, driver.Planned, int], tmp_path: Path
) -> None:
    path, planned, counted = built
    *inputs, target = nets.batches("resnet", 4, 6)[0]
    rows = {"x": inputs[0].numpy(), "target": target.numpy()}
    np.savez(tmp_path / "d.npz", **{k: np.concatenate([v] * 6) for k, v in rows.items()})
    data = tmp_path / "d.npz"
    events = pock_run(
        path, "train", "--data", data, "--eval", data, "--epochs", 3, "--checkpoint",
        tmp_path, "--save", tmp_path / "tuned.pock", "--log-json",
    )  # fmt: skip
    needed = planned.memory.state.nbytes + planned.memory.arena_bytes
    assert needed < private(events) <= counted


def test_a_benchmark_without_its_batch_stays_within_it(
    built: tuple[Path, driver.Planned, int],
) -> None:
    path, planned, counted = built
    measured = private(pock_run(path, "bench", "--steps", 5, "--json"))
    assert planned.memory.state.nbytes + planned.memory.arena_bytes < measured <= counted
    # A bound that is far off would forbid what fits.
    assert counted - measured < 0.5 * planned.runtime.nbytes


def test_the_manifest_tells_the_same_bound(built: tuple[Path, driver.Planned, int]) -> None:
    path, planned, counted = built
    memory = runtime.read_manifest(path).memory
    assert memory["runtime_bytes"] == planned.runtime.nbytes
    parts = (memory[f"{n}_bytes"] for n in ("state", "arena", "runtime"))
    assert sum(parts) == counted


def test_tables_of_the_runtime_are_counted_to_the_page(
    built: tuple[Path, driver.Planned, int],
) -> None:
    path, planned, _ = built
    with runtime.load(path, THREADS) as artifact:
        memory = artifact.memory
    taken = memory.total_bytes - memory.state_bytes - memory.arena_bytes
    page = planned.host.page_bytes
    assert 0 <= planned.runtime.tables_bytes - taken <= page


def test_what_the_loader_writes_is_counted(built: tuple[Path, driver.Planned, int]) -> None:
    path, planned, _ = built
    page = planned.host.page_bytes
    pages: set[int] = set()
    for begin, nbytes in writable(path / "step.so"):
        pages |= set(range(begin // page, -(-(begin + nbytes) // page)))
    assert pages
    assert 0 <= planned.runtime.relocated_bytes - len(pages) * page <= 4 * page


def writable(library: Path) -> list[tuple[int, int]]:
    """Return address and size of the parts of an ELF file that are loaded writable."""
    data = library.read_bytes()
    (begin,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for i in range(count):
        kind, flags, _, address, _, _, nbytes = struct.unpack_from(
            "<IIQQQQQ", data, begin + i * size
        )
        if kind == _LOAD and flags & _WRITABLE:
            found.append((address, nbytes))
    return found
