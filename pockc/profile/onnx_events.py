"""What ONNX Runtime records of a session: an event per operator, in Chrome's trace format.

Times are whole microseconds. An operator's event tells its type, the shapes and bytes of
operands and results and, from newer releases, what the allocator had given out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pockc.profile.recording import Work

_SUFFIX = "_kernel_time"
_RUN = "model_run"

Shapes = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Call:
    """An operator that ran: its name and type, begin and end, what it did, what was held."""

    name: str
    op: str
    begin_ns: int
    end_ns: int
    work: Work
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a model: begin, end and its operators in order."""

    begin_ns: int
    end_ns: int
    calls: tuple[Call, ...]


def read_runs(path: Path, start_ns: int) -> list[Run]:
    """Return the runs of a session.

    Args:
        path: What ONNX Runtime wrote.
        start_ns: Added to all times.
    """
    runs, calls = [], []
    for event in json.loads(path.read_text(encoding="utf-8")):
        begin = start_ns + 1000 * int(event.get("ts", 0))
        end = begin + 1000 * int(event.get("dur", 0))
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            calls.append(_call(event, begin, end))
        elif event.get("name") == _RUN:
            runs.append(Run(begin, end, tuple(calls)))
            calls = []
    return runs


def _call(event: Mapping[str, Any], begin_ns: int, end_ns: int) -> Call:
    facts = event["args"]
    inputs, outputs = (_shapes(facts, f"{side}_type_shape") for side in ("input", "output"))
    moved = ("activation_size", "parameter_size", "output_size")
    work = Work(
        flops=2 * multiply_adds(facts["op_name"], inputs, outputs),
        nbytes=sum(int(facts.get(m, 0)) for m in moved),
        live_bytes=int(facts.get("mem_bytes_in_use", 0)),
    )
    name = event["name"].removesuffix(_SUFFIX)
    held = int(facts.get("mem_arena_held", 0))
    return Call(name, facts["op_name"], begin_ns, end_ns, work, held)


def _shapes(facts: Mapping[str, Any], key: str) -> Shapes:
    return [shape for typed in facts.get(key, ()) for shape in typed.values()]


def multiply_adds(op: str, inputs: Shapes, outputs: Shapes) -> int:
    """Return the multiply-adds of a product or convolution, 0 of anything else.

    Constants that were packed when the model was loaded are missing among the inputs: products
    do not need them, and a convolution without its filters counts as 0.
    """
    count = _COUNTS.get(op)
    return 0 if count is None or not outputs else count(inputs, math.prod(outputs[0]), outputs)


def _product(inputs: Shapes, made: int, outputs: Shapes) -> int:
    """Each element of the first operand meets every column of the second."""
    rows = math.prod(outputs[0][:-1])
    inner = math.prod(inputs[0]) // rows if rows else 0
    return made * inner


def _batched(inputs: Shapes, made: int, _: Shapes) -> int:
    return made * inputs[0][-1]


def _convolution(inputs: Shapes, made: int, _: Shapes) -> int:
    return made * _per_filter(inputs)


def _transposed_convolution(inputs: Shapes, _: int, __: Shapes) -> int:
    return math.prod(inputs[0]) * _per_filter(inputs)


def _per_filter(inputs: Shapes) -> int:
    return math.prod(inputs[1][1:]) if len(inputs) > 1 else 0


_COUNTS: Mapping[str, Callable[[Shapes, int, Shapes], int]] = {
    "MatMul": _batched,
    "Gemm": _product,
    "FusedGemm": _product,
    "FusedMatMul": _product,
    "Conv": _convolution,
    "FusedConv": _convolution,
    "ConvTranspose": _transposed_convolution,
}
