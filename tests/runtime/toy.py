"""A whole artifact without a compiler: kernels and plan by hand, and the same in NumPy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from pockc.artifact import Contents, Machine, ValueRange, write_artifact
from pockc.backends.native import HOST, link, machine_for, product_of
from pockc.backends.native.zig import run_zig
from pockc.ir.attrs import Literal
from pockc.ir.roles import (
    Batch,
    Buffer,
    BufferUpdate,
    Loss,
    Metric,
    OptState,
    Param,
    Prediction,
    Scalar,
    StateUpdate,
    Update,
)
from pockc.ir.types import DType, TensorType
from pockc.plan.types import (
    Constant,
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
from pockc.runtime.manifest import STEP_FILE

N, C, K = 4, 3, 5
SOURCE = Path(__file__).with_name("toy.c")
F32, I64 = DType.F32, DType.I64
SCALE = np.array([0.5], np.float32)

X, TARGET = TensorType((N, C), F32), TensorType((N,), I64)
W = TensorType((K, C), F32, (1, 0))
LOGITS, ROWS, NUMBER = TensorType((N, K), F32), TensorType((N,), F32), TensorType((), F32)
SEED = TensorType((), I64)

_SLOTS = (
    StateSlot(Param("fc.weight"), W, 0),
    StateSlot(Buffer("mean"), TensorType((C,), F32), 0, None, Space.FROZEN),
    StateSlot(Buffer("last_seed"), SEED, 64),
    StateSlot(OptState("momentum", "fc.weight"), W, 128),
    StateSlot(OptState("grad_sum", "fc.weight"), W, 192),
    StateSlot(Constant("scale"), TensorType((1,), F32), 64, Literal(SCALE), Space.FROZEN),
)
_W, _MEAN, _LAST, _MOMENTUM, _SUM, _SCALE = (s.place for s in _SLOTS)


def _arena(number: int, type_: TensorType) -> Place:
    return Place(Space.ARENA, 128 * number, type_.nbytes)


_X, _TARGET, _LOGITS = _arena(0, X), _arena(1, TARGET), _arena(2, LOGITS)
_LOSS_ROWS, _COUNTED, _CORRECT, _LOSS = (_arena(i, ROWS) for i in (3, 4, 5, 6))
_LR = Place(Space.SCALAR, 0, 4)
_SEED = Place(Space.SCALAR, 128, 8)
_ARENA_BYTES = 128 * 7

_FORWARD = Step("toy_forward", (_X, _W, _MEAN, _SCALE, _LOGITS), "logits")
_ROWS = Step("toy_loss_rows", (_LOGITS, _TARGET, _LOSS_ROWS), "loss_rows")
_BATCH = (InputPort(Batch("x"), X, _X), InputPort(Batch("target"), TARGET, _TARGET))
_WEIGHTS = (InputPort(Param("fc.weight"), W, _W), InputPort(Buffer("mean"), X, _MEAN))


def _entry(name: str, steps: tuple[Step, ...], *ports: InputPort | OutputPort) -> EntryPlan:
    inputs = tuple(p for p in ports if isinstance(p, InputPort))
    outputs = tuple(p for p in ports if isinstance(p, OutputPort))
    return EntryPlan(name, steps, inputs, outputs, _ARENA_BYTES, _ARENA_BYTES)


def toy_plan(micro_batches: int = 1, fail: bool = False) -> Plan:
    """The plan; with `fail` the entry `predict` ends in a kernel that returns 7."""
    update = Step(f"toy_update_{micro_batches}", (_SUM, _LR, _MOMENTUM, _W), "new_weight")
    gradient = Step("toy_gradient", (_X, _MEAN, _SCALE, _LOGITS, _TARGET, _SUM), "grad")
    lr = InputPort(Scalar("lr"), NUMBER, _LR)
    new_state = (
        OutputPort(Update("fc.weight"), W, _W),
        OutputPort(StateUpdate("momentum", "fc.weight"), W, _MOMENTUM),
    )
    train = [_FORWARD, _ROWS, Step("toy_mean", (_LOSS_ROWS, _LOSS), "loss"), gradient]
    train += [Step("pk_copy", (_SEED, _LAST), "last_seed")]
    train += [update] if micro_batches == 1 else []
    entries = [
        _entry(
            "train_step", tuple(train), *_WEIGHTS, *_BATCH, lr,
            InputPort(Scalar("seed"), SEED, _SEED),
            OutputPort(Loss(), NUMBER, Place(Space.ARENA, _LOSS.offset_bytes, 4)),
            OutputPort(BufferUpdate("last_seed"), SEED, _LAST),
            *(new_state if micro_batches == 1 else ()),
        ),
        _entry(
            "evaluate",
            (
                _FORWARD,
                _ROWS,
                Step("toy_counted", (_TARGET, _COUNTED), "weight_rows"),
                Step("toy_correct", (_LOGITS, _TARGET, _CORRECT), "correct_rows"),
            ),
            *_WEIGHTS, *_BATCH,
            OutputPort(Metric("loss_rows"), ROWS, _LOSS_ROWS),
            OutputPort(Metric("weight_rows"), ROWS, _COUNTED),
            OutputPort(Metric("correct_rows"), ROWS, _CORRECT),
            OutputPort(Metric("count_rows"), ROWS, _COUNTED),
        ),
        _entry(
            "predict",
            (_FORWARD, *((Step("toy_fail", (_X,), "failing"),) if fail else ())),
            *_WEIGHTS, _BATCH[0], OutputPort(Prediction("0"), LOGITS, _LOGITS),
        ),
    ]  # fmt: skip
    if micro_batches > 1:
        entries.append(_entry("apply_update", (update,), lr, *new_state))
    return Plan(StateLayout(_SLOTS, 256, 128), tuple(entries), _ARENA_BYTES, 192)


def toy_values() -> dict[str, np.ndarray]:
    """The model's tensors; `bn.weight` is used by no step, as if it had been folded."""
    rng = np.random.default_rng(7)
    return {
        "fc.weight": rng.standard_normal((K, C)).astype(np.float32),
        "mean": rng.standard_normal(C).astype(np.float32),
        "last_seed": np.array(0, np.int64),
        "bn.weight": rng.standard_normal(6).astype(np.float32),
    }


def link_toy(folder: Path, micro_batches: int = 1, fail: bool = False) -> Path:
    """Compile the kernels and link the library."""
    obj, out = folder / "toy.o", folder / f"step_{micro_batches}_{fail}.so"
    args = ("cc", "-target", HOST.triple, "-O1", "-fPIC", "-fno-sanitize=all", "-c")
    run_zig((*args, str(SOURCE), "-o", str(obj)), folder)
    link(toy_plan(micro_batches, fail), {"toy": obj.read_bytes()}, out, HOST, micro_batches)
    return out


def toy_machine() -> Machine:
    """This machine."""
    arch = HOST.triple.partition("-")[0]
    return machine_for("host", f"{arch}-linux-gnu", "generic")


def toy_contents(library: Path, micro_batches: int = 1, fail: bool = False) -> Contents:
    """Everything that goes into the artifact."""
    return Contents(
        product=product_of(toy_plan(micro_batches, fail), {STEP_FILE: library}, toy_machine()),
        values=toy_values(),
        buffers=frozenset({"mean", "last_seed"}),
        graph_text="graph toy\n",
        batch_rows=N * micro_batches,
        micro_batches=micro_batches,
        aliases={"tied.weight": "fc.weight"},
        learning_rate=0.1,
        seed=3,
        class_names=("a", "b", "c", "d", "e"),
        input_values={"target": ValueRange(0, K - 1, "label", -100)},
        trained={"fc.weight": K * C},
        multiply_adds={"train_step": 2 * N * C * K},
        report={"scheme": {"fc.weight": "all"}},
    )


def write_toy(path: Path, library: Path, micro_batches: int = 1, fail: bool = False) -> Path:
    """Write the artifact."""
    write_artifact(path, toy_contents(library, micro_batches, fail))
    return path


class Reference:
    """The classifier in NumPy."""

    def __init__(self) -> None:
        values = toy_values()
        self.weight, self.mean = values["fc.weight"].copy(), values["mean"]
        self.momentum = np.zeros_like(self.weight)

    def logits(self, x: np.ndarray) -> np.ndarray:
        return SCALE[0] * (x - self.mean) @ self.weight.T

    def _log_softmax(self, x: np.ndarray) -> np.ndarray:
        z = self.logits(x)
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def loss(self, x: np.ndarray, target: np.ndarray) -> float:
        counted = target >= 0
        rows = -self._log_softmax(x)[np.arange(len(x)), np.maximum(target, 0)]
        return float(rows[counted].mean())

    def train_step(self, x: np.ndarray, target: np.ndarray, lr: float) -> float:
        loss = self.loss(x, target)
        d = np.exp(self._log_softmax(x))
        d[np.arange(len(x)), target] -= 1
        gradient = SCALE[0] * (d / len(x)).T @ (x - self.mean)
        self.momentum = 0.9 * self.momentum + gradient
        self.weight = (self.weight - lr * self.momentum).astype(np.float32)
        return loss


def toy_data(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that a linear classifier can learn."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, C)).astype(np.float32)
    planes = np.random.default_rng(99).standard_normal((K, C))
    return x, np.argmax(x @ planes.T, axis=1).astype(np.int64)


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
