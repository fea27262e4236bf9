"""The record of a profiled artifact, and its file.

It stands alone: tables, traces and reports are made from it without the artifact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from pockc.ir.phases import PHASES
from pockc.profile.files import Strict, read_json
from pockc.runtime.files import replaced_file

FORMAT: Literal["pock-profile"] = "pock-profile"
VERSION: Literal[2] = 2
TRAIN_STEP = "train_step"
_FIX = "make it again: pockc profile MODEL.pock --json FILE.json"


class Machine(Strict):
    """Where it ran, and what that machine reaches at most with so many threads.

    Attributes:
        cpu: The processor's name.
        threads: Threads that ran kernels.
        peak_gflops: Fused multiply-adds, each two operations; 0 if unknown.
        peak_gbs: Bytes of memory per second (10^9), by STREAM's triad; 0 if unknown.
    """

    cpu: str
    threads: int
    peak_gflops: float
    peak_gbs: float


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What is known of a kernel call besides its times: the fields of `Kernel`."""

    symbol: str
    family: str
    node: str
    op: str
    phase: str
    module: str
    source: str
    kind: str
    flops: int
    other_flops: int
    nbytes: int


class Kernel(Strict):
    """One kernel call of a step.

    Attributes:
        entry: `train_step` or, with micro-batches, `apply_update`.
        call: Its number in the entry, from 0.
        runs: How often a step makes it: once for each micro-batch.
        symbol: The kernel's C symbol; of ONNX Runtime the operator's type, as `FusedConv`.
        family: What kind of kernel the symbol names.
        node: The graph's node; or the operator's name, if ONNX Runtime has put it in.
        op: What it computes; of a fused node all ops.
        phase: forward, backward or update.
        module: The user's module, "" if none is known.
        source: The user's line as `model.py:27 in Mlp.forward: ...`, "" if none is known.
        kind: What limits it, as `conv2d depthwise`, see `Work`; of ONNX Runtime the type.
        flops: Operations of its products and convolutions in one run; a multiply-add is two.
        other_flops: Its other arithmetic in one run.
        nbytes: Operands and result in one run, each once.
        ms: Time of all runs of a step together: the median over the steps.
        low_ms: Their lower quartile: what it takes where nothing disturbs it.
        min_ms: The least of the steps.
        mean_ms: Their mean; over all calls these means sum up to the mean step.
    """

    entry: str
    call: int
    runs: int
    symbol: str
    family: str
    node: str
    op: str
    phase: str
    module: str
    source: str
    kind: str
    flops: int
    other_flops: int
    nbytes: int
    ms: float
    low_ms: float
    min_ms: float
    mean_ms: float

    @property
    def gflops(self) -> float:
        """10^9 operations per second."""
        return self.flops * self.runs / self.ms * 1e-6 if self.ms else 0.0

    @property
    def gbs(self) -> float:
        """10^9 bytes per second."""
        return self.nbytes * self.runs / self.ms * 1e-6 if self.ms else 0.0

    def roofline(self, machine: Machine) -> float | None:
        """Return the share of what arithmetic or memory allows; None without peaks.

        Above 1 where operands come from caches, which are faster than the memory measured.
        Williams et al., Roofline, CACM 2009.
        """
        if not self.ms or not machine.peak_gflops or not machine.peak_gbs:
            return None
        return max(self.gflops / machine.peak_gflops, self.gbs / machine.peak_gbs)


class Span(Strict):
    """One thread's part of one kernel call, in a recorded step.

    Attributes:
        kernel: Position in `Profile.kernels`.
        thread: 0 is the caller.
        begin_ns: From the beginning of the first recorded step.
        end_ns: Likewise.
    """

    kernel: int
    thread: int
    begin_ns: int
    end_ns: int


class PlannedMemory(Strict):
    """The planned bytes of a training step by purpose.

    Attributes:
        parameters: Trained parameters and buffers that steps change.
        optimizer_state: What the optimizer keeps.
        frozen: Mapped from a file: what no step changes.
        arena: The scratch of all entries.
        inputs: The batch, at the peak; so are the next three, all of them in the arena.
        saved_activations: Made by the forward and read by the backward pass.
        workspace: Scratch of one kernel.
        temporaries: Everything else, gradients included.
        peak_call: Number of the call at the peak; -1 while inputs or outputs are copied.
        peak_node: The node of that call.
        timeline: Bytes alive in the arena: while inputs are filled, at every call of
            `train_step`, while outputs are read.
    """

    parameters: int
    optimizer_state: int
    frozen: int
    arena: int
    inputs: int
    saved_activations: int
    workspace: int
    temporaries: int
    peak_call: int
    peak_node: str
    timeline: tuple[int, ...]


class HeldMemory(Strict):
    """The bytes of a training step under a runtime that plans for itself: told, not planned.

    Attributes:
        parameters: Trained parameters and buffers that steps change.
        optimizer_state: What the optimizer keeps.
        second_buffers: Of what cannot be renewed in place.
        frozen: The file of frozen tensors and constants.
        arena: What the runtime's allocator took from the system; 0 if it does not tell.
        peak: The most that it had given out of that.
        timeline: What it had given out behind every call of `train_step`.
    """

    parameters: int
    optimizer_state: int
    second_buffers: int
    frozen: int
    arena: int
    peak: int
    timeline: tuple[int, ...]


class Profile(Strict):
    """A profiled artifact.

    Attributes:
        artifact: The folder's name.
        step_sha256: Hash of its `step.so` or `train_step.onnx`.
        target: What it was compiled for.
        backend: `native`: kernels of our own; `onnx`: operators of ONNX Runtime.
        batch_rows: Rows of a step.
        machine: Where it ran.
        load_ms: From the process's beginning to the open artifact.
        first_step_ms: The first step.
        step_ms: Every steady step.
        kernels: The calls of a step, in order.
        memory: What was planned; None where another runtime plans.
        held: What that runtime says; None where we plan.
        rss_before_bytes: Resident memory before the artifact was opened.
        rss_peak_bytes: The most resident memory.
        measuring_bytes: Of the peak, what only the measuring takes: random input, times.
        busy_ns: By thread, time in kernels during the steady steps; empty if unknown.
        spans: Calls by thread of the last recorded steps.
        span_steps: Begin and end of these steps, nanoseconds as in `spans`.
    """

    format: Literal["pock-profile"] = FORMAT
    version: Literal[2] = VERSION
    artifact: str
    step_sha256: str
    target: str
    backend: str
    batch_rows: int
    machine: Machine
    load_ms: float
    first_step_ms: float
    step_ms: tuple[float, ...]
    kernels: tuple[Kernel, ...]
    memory: PlannedMemory | None
    held: HeldMemory | None = None
    rss_before_bytes: int
    rss_peak_bytes: int
    measuring_bytes: int
    busy_ns: tuple[int, ...]
    spans: tuple[Span, ...]
    span_steps: tuple[tuple[int, int], ...]

    @property
    def median_ms(self) -> float:
        """The median steady step."""
        return median(self.step_ms)

    @property
    def p95_ms(self) -> float:
        """The time that 95 % of the steady steps do not exceed."""
        return sorted(self.step_ms)[math.ceil(0.95 * len(self.step_ms)) - 1]

    @property
    def kernels_ms(self) -> float:
        """The kernels of a mean step together."""
        return sum(k.mean_ms for k in self.kernels)

    def phase_ms(self) -> dict[str, float]:
        """Return the median times of the kernels summed by phase."""
        return {p: sum(k.ms for k in self.kernels if k.phase == p) for p in PHASES}

    def balance(self) -> tuple[float, ...]:
        """Return for each thread the share of the steady steps that it spent in kernels."""
        total = sum(self.step_ms) * 1e6
        return tuple(b / total if total else 0.0 for b in self.busy_ns)


def grouped(kernels: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """Return the calls by symbol, those that take longest first."""
    found: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        found.setdefault(kernel.symbol, []).append(kernel)
    return dict(sorted(found.items(), key=lambda kv: -total_ms(kv[1])))


def lower_quartile(values: Sequence[float]) -> float:
    """Return what a quarter of some values do not exceed."""
    return sorted(values)[len(values) // 4]


def total_ms(kernels: Sequence[Kernel]) -> float:
    """Return the sum of median times."""
    return sum(k.ms for k in kernels)


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile's file, replacing an older one at once."""
    with replaced_file(path, keep_previous=False) as file:
        file.write(profile.model_dump_json(indent=1).encode() + b"\n")


def read_profile(path: Path) -> Profile:
    """Return the profile of a file.

    Raises:
        UserError: [profile-file] It is missing, damaged, something else or of another version.
    """
    return read_json(path, Profile, FORMAT, VERSION, _FIX)
