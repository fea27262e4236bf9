"""How long kernels take on one machine: as measured there, or by a model of what was.

A kernel's symbol is the hash of all that its code depends on, so a time measured in one
artifact holds in every other one for the same machine and number of threads, made by the same
generator. What was never measured is left to `kernel_model`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pockc.backends.tvm import cache
from pockc.backends.tvm.targets import Target
from pockc.errors import UserError
from pockc.ir import Graph
from pockc.plan import COPY_KERNEL, Step
from pockc.profile.work import Work, work_of
from pockc.search.kernel_model import Basis, KernelModel
from pockc.search.machines import Peaks, host_peaks, last_cache_bytes, theoretical_peaks
from pockc.search.times_file import (
    Measured,
    add_times,
    default_file,
    kernel_key,
    read_given,
    read_times,
)


@dataclass(frozen=True, slots=True)
class Expected:
    """The time of a kernel call, and what it rests on."""

    ms: float
    basis: Basis


class KernelTimes:
    """Times of kernels for one machine."""

    def __init__(self, target: Target, threads: int, measured: Measured | None = None) -> None:
        """Begin with what was measured.

        Args:
            target: The machine.
            threads: Threads that run kernels.
            measured: What is known of it.
        """
        self.target, self.threads = target, threads
        self.measured = measured or Measured()
        self._model: KernelModel | None = None
        self._expected: dict[str, Expected] = {}

    def expected(self, graph: Graph, step: Step) -> Expected:
        """Return the time of one kernel call in a graph's plan."""
        known = self._expected.get(step.kernel)
        if known is None:
            work = work_of(graph, step.kernel, step.node)
            timed = self.measured.kernels.get(kernel_key(step.kernel, work))
            known = (
                self._modelled(work) if timed is None else Expected(timed.ms, Basis.MEASURED)
            )
            if step.kernel != COPY_KERNEL:  # of which one serves all sizes
                self._expected[step.kernel] = known
        return known

    def step_ms(self, graph: Graph, step: Step) -> float:
        """Return the time of one kernel call in a graph's plan."""
        return self.expected(graph, step).ms

    def add(self, measured: Measured) -> None:
        """Take further measurements; of a kernel measured before the shorter time stays."""
        self.measured.add(measured)
        self._model = None
        self._expected.clear()

    @property
    def key(self) -> str:
        """What times depend on besides the kernel: machine, threads, generator of kernels."""
        return f"{self.target.key}; {self.threads} threads; {cache.version()[:12]}"

    @classmethod
    def read(cls, target: Target, threads: int, paths: Sequence[Path] = ()) -> KernelTimes:
        """Return what is known of a machine.

        Args:
            target: The machine.
            threads: Threads that run kernels.
            paths: Files of times and profiles; none for what this machine has measured before.

        Raises:
            UserError: [kernel-times] A file is missing, damaged or of another machine.
        """
        found = cls(target, threads)
        if not paths:
            found.measured = read_times(default_file(), found.key)
        for path in paths:
            found.measured.add(read_given(path, found.key, target.name, threads))
        return found

    def write(self, path: Path | None = None) -> None:
        """Add the times to a file, beside those of other machines.

        Args:
            path: The file; None for the default one, where failing to write is no error: it
                only saves measuring again.

        Raises:
            UserError: [kernel-times] The file is damaged; [write-failed].
        """
        if path is not None:
            add_times(path, self.key, self.measured)
            return
        with contextlib.suppress(UserError):
            add_times(default_file(), self.key, self.measured)

    def _modelled(self, work: Work) -> Expected:
        if self._model is None:
            cache_bytes = last_cache_bytes(self.target)
            measured = self.measured.kernels.values()
            self._model = KernelModel(self._peaks(), cache_bytes, measured)
        return Expected(self._model.ms(work), self._model.basis(work.kind))

    def _peaks(self) -> Peaks:
        """Return what the machine reaches: as a profile or this machine says, else theory."""
        if self.measured.peaks is None and self.target.name == "host":
            self.measured.peaks = host_peaks(self.threads)
            with contextlib.suppress(UserError):
                add_times(default_file(), self.key, Measured(peaks=self.measured.peaks))
        return self.measured.peaks or theoretical_peaks(self.target, self.threads)
