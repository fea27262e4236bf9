"""How the time of a planned step is told: with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pockc.cli.console import Bar
from pockc.cli.text import milliseconds

if TYPE_CHECKING:
    from pockc.cli.searching import Asked
    from pockc.driver import Planned
    from pockc.frontend.captured import Captured
    from pockc.scheme import Config
    from pockc.search.kernel_times import KernelTimes
    from pockc.search.prediction import StepTime


def time_rows(predicted: StepTime) -> Iterator[tuple[str, str, str]]:
    """Yield name, figure and note for a table: the time, and its parts by what they rest on."""
    from pockc.search.kernel_model import Basis

    notes = {
        Basis.MEASURED: "of kernels that were measured",
        Basis.FITTED: "by rates of measured kernels of the same kind",
        Basis.USUAL: "by usual rates, no kernel of the kind was measured",
    }
    yield "time of a step", milliseconds(predicted.ms), "predicted"
    for basis, note in notes.items():
        if count := predicted.kernels.get(basis):
            share = f"{100 * predicted.share(basis):.0f} %"
            yield f"  {basis.value}", share, f"{count} kernels: {note}"


def measure_missing(
    asked: Asked,
    captured: Captured,
    config: Config,
    planned: Planned,
    times: KernelTimes,
    bar: Bar,
) -> None:
    """Run a plan's step on this machine if some of its kernels were never measured.

    Raises:
        UserError: [measure] The target is another machine.
    """
    from pockc.search.kernel_model import Basis
    from pockc.search.measuring import measure
    from pockc.search.prediction import step_time

    known = step_time(planned, times).kernels
    missing = known.total() - known[Basis.MEASURED]
    if missing:
        bar.update("measuring", 0, None, f"{missing} kernels")
        times.add(measure(captured, config, asked.options()))
        times.write(asked.times_target())
