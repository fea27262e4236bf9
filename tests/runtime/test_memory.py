"""What the plan says is what the process takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockc.artifact import write_artifact
from pockc.backends.native import HOST, link, product_of
from pockc.ir.roles import Batch, OptState, Param, Prediction
from pockc.ir.types import DType, TensorType
from pockc.plan.types import (
    EntryPlan,
    InputPort,
    OutputPort,
    Place,
    Plan,
    Space,
    StateLayout,
    StateSlot,
    Step,
)
from pockc.runtime import load
from pockc.runtime.manifest import STEP_FILE
from tests.runtime.toy import run_python, toy_contents, toy_machine

MIB = 1 << 20
ROW = TensorType((4, 4 * MIB), DType.F32)  # 64 MiB
TURNED = TensorType((4096, 5120), DType.F32, (1, 0))  # 80 MiB
STATE = {Param("a"): ROW, Param("b"): TURNED, OptState("m", "a"): ROW}

MEASURE = """
import sys, json, numpy, pockc.runtime
from pockc.runtime.opening import sha256_of
def peak(key="VmHWM"):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(l for l in lines if l.startswith(key)).split()[1])
sha256_of(__import__("pathlib").Path(sys.executable).resolve())  # OpenSSL is not counted
x = numpy.zeros((4, 4 << 20), "f")
x += 1
before = peak()
artifact = pockc.runtime.load(sys.argv[1])
artifact.run("copy", x)
artifact.save_checkpoint(sys.argv[2])
print(json.dumps([peak() - before, artifact.memory.total_bytes]))
"""


def big_plan() -> Plan:
    """A large state, partly in another order, and an entry that touches all of the arena."""
    slots, offset = [], 0
    for key, type_ in STATE.items():
        slots.append(StateSlot(key, type_, offset))
        offset += type_.nbytes
    source, target = (Place(Space.ARENA, i * ROW.nbytes, ROW.nbytes) for i in range(2))
    state = Place(Space.STATE, slots[-1].offset_bytes, ROW.nbytes)
    entry = EntryPlan(
        "copy",
        (Step("pk_copy", (source, target), "y"), Step("pk_copy", (target, state), "m")),
        (InputPort(Batch("x"), ROW, source),),
        (OutputPort(Prediction("0"), TensorType((), DType.F32), target),),
        2 * ROW.nbytes,
        2 * ROW.nbytes,
    )
    return Plan(StateLayout(tuple(slots), offset), (entry,), 2 * ROW.nbytes, 192)


@pytest.mark.slow
def test_the_planned_peak_is_the_measured_one(tmp_path: Path) -> None:
    plan = big_plan()
    link(plan, {}, tmp_path / "step.so", HOST)
    rng = np.random.default_rng(0)
    contents = replace(
        toy_contents(tmp_path / "step.so"),
        product=product_of(plan, {STEP_FILE: tmp_path / "step.so"}, toy_machine()),
        values={n: rng.random(STATE[Param(n)].shape, np.float32) for n in ("a", "b")},
        buffers=frozenset(),
        aliases={},
        trained={},
    )
    path, file = tmp_path / "big.pock", tmp_path / "c.safetensors"
    write_artifact(path, contents)
    code = f"import sys; sys.argv[1:] = [{str(path)!r}, {str(file)!r}]\n{MEASURE}"
    measured, planned = json.loads(run_python(code))
    state, arena = plan.state.nbytes, plan.arena_bytes
    assert planned == pytest.approx(state + arena, abs=64 * 1024)
    assert measured == pytest.approx(planned, rel=0.02, abs=2 * MIB)
    artifact = load(path)
    artifact.load_state(file)
    for name, value in contents.values.items():
        np.testing.assert_array_equal(artifact.state.array(name), value)
