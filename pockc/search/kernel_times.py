"""How long kernels take: measured where they were, by arithmetic and bandwidth otherwise.

A kernel's symbol is the hash of all that its code depends on, so a time measured in one
artifact holds in every other one for the same machine and number of threads. What was never
measured is estimated by a roofline (Williams et al., CACM 2009), which is scaled by how far
measured kernels of the same family, or else all of them, are from theirs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pockc.backends.tvm import cache
from pockc.backends.tvm.targets import Target
from pockc.errors import Problem, UserError
from pockc.ir import Graph
from pockc.plan import COPY_KERNEL, Step
from pockc.plan.names import kernel_family
from pockc.runtime.files import replaced_file
from pockc.runtime.timing import step_times
from pockc.scheme.report import multiply_adds

if TYPE_CHECKING:
    from pockc.driver import Planned
    from pockc.runtime import Artifact

FILE = "kernel_times.json"
CLOCK_HZ = 2.0e9
"""Of a core, where nobody has measured; a device's profile replaces it."""
BYTES_PER_SECOND = 6.0e9
"""Of memory, all cores together, likewise."""
CALL_MS = 0.002
"""What the least kernel takes."""
EFFICIENCY = 0.5
"""Share of the peak of multiply-adds that kernels reach."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured kernel: its time, and the roofline's for the same work."""

    ms: float
    roofline_ms: float


class KernelTimes:
    """Times by kernel symbol for one machine."""

    def __init__(
        self, target: Target, threads: int, measured: Mapping[str, Timed] | None = None
    ) -> None:
        """Begin with what was measured.

        Args:
            target: The machine.
            threads: Threads that run kernels.
            measured: By symbol.
        """
        self.target, self.threads = target, threads
        self.measured = dict(measured or {})
        self._scales: dict[str, float] | None = None

    def step_ms(self, graph: Graph, step: Step) -> float:
        """Return the time of one kernel call in a graph's plan."""
        if step.kernel == COPY_KERNEL:
            nbytes = sum(a.nbytes for a in step.args)
            return CALL_MS + nbytes / BYTES_PER_SECOND * 1e3 * self._scale("copy")
        known = self.measured.get(step.kernel)
        if known is not None:
            return known.ms
        return self.roofline_ms(graph, step) * self._scale(kernel_family(step.kernel))

    def roofline_ms(self, graph: Graph, step: Step) -> float:
        """Return the time that arithmetic or memory alone would take, whichever is longer."""
        node = graph.node(step.node)
        flops = 0 if node is None else 2 * multiply_adds(graph, node)
        nbytes = sum(a.nbytes for a in step.args)
        peak = 4 * self.target.vector_floats * CLOCK_HZ * self.threads * EFFICIENCY
        return CALL_MS + 1e3 * max(flops / peak, nbytes / BYTES_PER_SECOND)

    def _scale(self, name: str) -> float:
        """Return how much slower than their roofline measured kernels of a family are."""
        if self._scales is None:
            ratios: dict[str, list[float]] = defaultdict(list)
            for symbol, timed in self.measured.items():
                if timed.roofline_ms > 0:
                    ratios[kernel_family(symbol)].append(timed.ms / timed.roofline_ms)
                    ratios[""].append(timed.ms / timed.roofline_ms)
            self._scales = {k: median(v) for k, v in ratios.items()}
        return self._scales.get(name, self._scales.get("", 1.0))

    def add(self, measured: Mapping[str, Timed]) -> None:
        """Take further measurements; of a kernel measured before the shorter time stays."""
        for symbol, timed in measured.items():
            old = self.measured.get(symbol)
            if old is None or timed.ms < old.ms:
                self.measured[symbol] = timed
        self._scales = None

    @property
    def key(self) -> str:
        """What times depend on besides the kernel."""
        return f"{self.target.key}; {self.threads} threads"

    @classmethod
    def read(cls, target: Target, threads: int, path: Path | None = None) -> KernelTimes:
        """Return the times that a file has for a machine; no file is no times.

        Raises:
            UserError: [kernel-times] The file is damaged.
        """
        found = cls(target, threads)
        rows = _rows(path or default_file()).get(found.key, {})
        found.measured = {k: Timed(*v) for k, v in rows.items()}
        return found

    def write(self, path: Path | None = None) -> None:
        """Put the times into a file, beside those of other machines."""
        path = path or default_file()
        everything = _rows(path)
        everything[self.key] = {
            k: (round(t.ms, 6), round(t.roofline_ms, 6))
            for k, t in sorted(self.measured.items())
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path, keep_previous=False) as file:
            file.write(json.dumps(everything, indent=1).encode())


def _rows(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    if not path.exists():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        return {
            k: {s: (float(t[0]), float(t[1])) for s, t in v.items()} for k, v in loaded.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        what = f"{path} does not hold kernel times: {error}"
        fix = "delete it, and measure again"
        raise UserError(Problem("kernel-times", what, fix=fix)) from error


def default_file() -> Path:
    """Return where times are kept: beside the kernels."""
    return cache.folder() / FILE


def measure(
    artifact: Artifact,
    planned: Planned,
    batch: Sequence[object],
    steps: int,
    times: KernelTimes,
) -> None:
    """Run some training steps, and add the time of each kernel: the median of its calls.

    Args:
        artifact: The artifact; its weights are changed by the steps.
        planned: What it was built from.
        batch: The model's inputs, then the target.
        steps: How many steps.
        times: Where the times go.
    """
    taken = step_times(artifact, batch, steps)
    found: dict[str, list[float]] = defaultdict(list)
    roofline: dict[str, float] = {}
    for entry in planned.entries:
        layout = planned.memory.entry(entry.name)
        if entry.name not in taken or layout is None:
            continue
        for step, ms in zip(layout.steps, taken[entry.name], strict=True):
            if step.kernel != COPY_KERNEL:
                found[step.kernel].append(ms)
                roofline[step.kernel] = times.roofline_ms(entry.graph, step)
    times.add({k: Timed(median(v), roofline[k]) for k, v in found.items()})
