"""Which candidate of a kernel is fastest: a greedy search, and a test against noise."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pockc.backends.base import Kernel, KernelMaker, needs_kernel
from pockc.backends.schedule import Schedule
from pockc.backends.tvm.targets import Target
from pockc.ir.graph import Graph, Input, Node, Output
from pockc.ir.printer import literals_of
from pockc.ir.roles import Batch, Prediction
from pockc.scheme.report import multiply_adds
from pockc.tuning.bench import Times, build_library, local_times

SCREENING, CONFIRMING = 9, 25
"""Rounds in which all candidates run, and in which the best one and the kernel alternate."""

WIN = 0.97
"""A candidate wins if it takes at most this part of the time, by the median of all rounds."""

LEAST_GAIN_NS = 200
"""Less than this is within what a clock and a call take."""

FLOPS_PER_BYTE = 10.0
"""Arithmetic that takes as long as a byte moved; only to order kernels by their cost."""


OTHER_ENTRIES = 0.1
"""What a call outside of the training step counts: there are fewer."""


@dataclass(frozen=True, slots=True)
class Job:
    """A kernel to tune.

    Attributes:
        kernel: It.
        calls: How often a step calls it.
        cost: What all calls cost, in bytes moved or as much time in arithmetic.
    """

    kernel: Kernel
    calls: int
    cost: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for a kernel.

    Attributes:
        schedule: The fastest, empty for the default.
        candidates: How many were measured.
        default_us: Median time of the default.
        tuned_us: Median time of the fastest.
    """

    schedule: Schedule
    candidates: int
    default_us: float
    tuned_us: float


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how candidates are measured.

    Attributes:
        backend: Who makes the kernels.
        target: The machine.
        sweep_bytes: Memory that a step touches.
        times: Runs a library.
    """

    backend: KernelMaker
    target: Target
    sweep_bytes: int
    times: Times = local_times


def jobs_of(
    graphs: Sequence[Graph], backend: KernelMaker, target: str, threads: int
) -> list[Job]:
    """Return the kernels of graphs that can be tuned, the most expensive first.

    Kernels that hold a large constant are left out: an artifact's text only names it.
    """
    found: dict[str, Job] = {}
    for graph in graphs:
        weight = 1.0 if graph.name == "train_step" else OTHER_ENTRIES
        for node in graph.nodes:
            if not needs_kernel(graph, node) or _holds_named_literal(node):
                continue
            alone = _alone(graph, node)
            (kernel,) = backend.select(alone, target, threads).kernels.values()
            moved = sum(t.nbytes for t in kernel.operands) + node.type.nbytes
            cost = weight * (moved + 2 * multiply_adds(graph, node) / FLOPS_PER_BYTE)
            old = found.get(kernel.symbol, Job(kernel, 0, 0.0))
            found[kernel.symbol] = Job(kernel, old.calls + 1, old.cost + cost)
    return sorted(found.values(), key=lambda j: (-j.cost, j.kernel.symbol))


def _alone(graph: Graph, node: Node) -> Graph:
    """Return a graph of one node."""
    types = graph.operand_types(node)
    inputs = tuple(Input(f"x{i}", t, Batch(str(i))) for i, t in enumerate(types))
    node = replace(node, inputs=tuple(i.name for i in inputs), source=None)
    return Graph("alone", inputs, (node,), (Output(node.name, Prediction("0")),))


def _holds_named_literal(node: Node) -> bool:
    return node.op == "fused" and bool(literals_of(node.attrs["body"]))


def tune_kernel(kernel: Kernel, setting: Setting) -> Outcome:
    """Search the schedule of a kernel: the best single change, and from there one more."""
    best, measured, gain = kernel, 0, 1.0
    default_ns: float | None = None
    with tempfile.TemporaryDirectory(prefix="pockc-tune-") as folder:
        for number in range(2):
            others = setting.backend.candidates(best, setting.target.name)
            if not others:
                break
            measured += len(others)
            runner = _Runner(setting, Path(folder) / f"{number}.so", [best, *others])
            leader = runner.leader()
            before, after, ratio = runner.compare(leader)
            default_ns = before if default_ns is None else default_ns
            if ratio > WIN or before - after < LEAST_GAIN_NS:
                break
            best, gain = leader, gain * after / before
    usual = (default_ns or 0.0) * 1e-3
    return Outcome(best.schedule, measured, usual, usual * gain)


@dataclass(frozen=True, slots=True)
class _Runner:
    """A kernel and its candidates in one library."""

    setting: Setting
    path: Path
    kernels: Sequence[Kernel]

    def __post_init__(self) -> None:
        s = self.setting
        build_library(self.kernels, s.backend, s.target, s.sweep_bytes, self.path)

    def leader(self) -> Kernel:
        """Return the candidate that is fastest in rounds in which all run, in turn."""
        times = self._rounds(self.kernels, SCREENING)
        usual = times[0]
        ratios = [median(t / u for t, u in zip(ts, usual, strict=True)) for ts in times[1:]]
        return self.kernels[1 + ratios.index(min(ratios))]

    def compare(self, leader: Kernel) -> tuple[float, float, float]:
        """Return median times of the kernel and a candidate, and the candidate's part.

        The part is the larger one of two, by the medians of all rounds and by the shortest
        times: a machine that is busy with something else now and then does not decide.
        """
        usual, other = self._rounds([self.kernels[0], leader], CONFIRMING)
        paired = median(o / u for u, o in zip(usual, other, strict=True))
        return median(usual), median(other), max(paired, min(other) / min(usual))

    def _rounds(self, kernels: Sequence[Kernel], count: int) -> list[list[int]]:
        """Return the times of each kernel; every round begins with another one."""
        symbols = [k.symbol for k in kernels]
        order = [
            symbols[(i + r) % len(symbols)] for r in range(count) for i in range(len(symbols))
        ]
        # Code and operands are touched for the first time in a round that does not count.
        taken = self.setting.times(self.path, [*symbols, *order], kernels[0].threads)
        taken = taken[len(symbols) :]
        return [[t for t, s in zip(taken, order, strict=True) if s == name] for name in symbols]
