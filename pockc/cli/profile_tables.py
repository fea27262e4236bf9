"""A profile, or two side by side, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table

from pockc.cli.console import table
from pockc.cli.text import milliseconds, percent, size
from pockc.profile import Kernel, Profile
from pockc.profile.rows import sorted_kernels


def tables(profiles: Sequence[Profile], order: str, shown: int) -> Iterator[Table]:
    """Yield what `pockc profile` shows: of each figure one column per profile, then kernels."""
    yield _time_table(profiles)
    yield _memory_table(profiles)
    if any(p.busy_ns for p in profiles):
        yield _thread_table(profiles)
    for profile in profiles:
        yield _kernel_table(profile, order, shown)


def _side_by_side(
    title: str,
    profiles: Sequence[Profile],
    rows: dict[str, Callable[[Profile], float]],
    text: Callable[[float], str],
) -> Table:
    two = len(profiles) > 1
    names = [p.artifact for p in profiles]
    columns = ["", *names, *(["ratio"] if two else [])]
    made = table(title, *columns, right=tuple(range(1, len(columns))))
    for name, figure in rows.items():
        values = [figure(p) for p in profiles]
        ratio = [f"{values[0] / values[1]:.2f}" if values[1] else ""] if two else []
        made.add_row(name, *map(text, values), *ratio)
    return made


def _time_table(profiles: Sequence[Profile]) -> Table:
    rows: dict[str, Callable[[Profile], float]] = {
        "load": lambda p: p.load_ms,
        "first step": lambda p: p.first_step_ms,
        "step, median": lambda p: p.median_ms,
        "step, 95 % below": lambda p: p.p95_ms,
        "  forward": lambda p: p.phase_ms()["forward"],
        "  backward": lambda p: p.phase_ms()["backward"],
        "  update": lambda p: p.phase_ms()["update"],
        "  outside kernels, mean": lambda p: max(
            0.0, sum(p.step_ms) / len(p.step_ms) - p.kernels_ms
        ),
    }
    return _side_by_side("Time", profiles, rows, milliseconds)


def _memory_table(profiles: Sequence[Profile]) -> Table:
    told = {
        "trained parameters and buffers": "parameters",
        "  second buffers": "second_buffers",
        "optimizer state": "optimizer_state",
        "arena": "arena",
        "  at the peak": "peak",
        "  at the peak: saved activations": "saved_activations",
        "  at the peak: workspace": "workspace",
        "  at the peak: inputs": "inputs",
        "  at the peak: gradients and temporaries": "temporaries",
        "frozen, mapped": "frozen",
    }

    def of(field: str) -> Callable[[Profile], float]:
        return lambda p: float(getattr(p.memory or p.held, field, 0))

    def is_told(field: str) -> bool:
        return any(hasattr(p.memory or p.held, field) for p in profiles)

    rows = {name: of(field) for name, field in told.items() if is_told(field)}
    rows["resident before opening"] = lambda p: p.rss_before_bytes
    rows["resident at most"] = lambda p: p.rss_peak_bytes
    rows["  of it for measuring"] = lambda p: p.measuring_bytes
    made = _side_by_side(
        "Memory: planned, then measured", profiles, rows, lambda n: size(int(n))
    )
    made.caption = "; ".join(_peak_line(p) for p in profiles if p.memory is not None)
    made.caption_justify = "left"
    return made


def _peak_line(profile: Profile) -> str:
    memory = profile.memory
    if memory is None or memory.peak_call < 0:
        return f"{profile.artifact}: the arena is fullest while inputs or outputs are copied"
    kernel = next(k for k in profile.kernels if k.call == memory.peak_call)
    where = f"{kernel.phase}, {kernel.module or kernel.source}"
    return f"{profile.artifact}: the arena is fullest at %{memory.peak_node} ({where})"


def _thread_table(profiles: Sequence[Profile]) -> Table:
    most = max(len(p.busy_ns) for p in profiles)

    def of(thread: int) -> Callable[[Profile], float]:
        return lambda p: p.balance()[thread] if thread < len(p.busy_ns) else 0.0

    rows = {f"thread {t}": of(t) for t in range(most)}
    return _side_by_side("Threads: share of the step in kernels", profiles, rows, percent)


def _kernel_table(profile: Profile, order: str, shown: int) -> Table:
    kernels = sorted_kernels(profile, order)
    total = sum(k.ms for k in kernels)
    machine = profile.machine
    title = f"{profile.artifact}: {len(kernels)} kernel calls, by {order}"
    figures = ("ms", "%", "GFLOP/s", "GB/s", "% roof")
    made = table(title, *figures, "phase", "kernel", "module", "source", right=(0, 1, 2, 3, 4))
    for kernel in kernels[:shown]:
        made.add_row(*_figures(profile, kernel, total), *_words(kernel))
    rest = kernels[shown:]
    if rest:
        share = sum(k.ms for k in rest) / total if total else 0.0
        made.add_row("", f"{100 * share:.1f}", "", "", "", "", f"... {len(rest)} more: --top")
    made.caption = f"{machine.cpu}, {machine.threads} threads"
    if machine.peak_gflops:
        made.caption += (
            f": {machine.peak_gflops:.0f} GFLOP/s of multiply-adds, "
            f"{machine.peak_gbs:.1f} GB/s of memory"
        )
    made.caption_justify = "left"
    return made


def _figures(profile: Profile, kernel: Kernel, total_ms: float) -> tuple[str, ...]:
    roof = kernel.roofline(profile.machine)
    return (
        f"{kernel.ms:.4g}",
        f"{100 * kernel.ms / total_ms:.1f}" if total_ms else "",
        f"{kernel.gflops:.1f}" if kernel.flops else "",
        f"{kernel.gbs:.1f}",
        "" if roof is None else f"{100 * roof:.0f}",
    )


def _words(kernel: Kernel) -> tuple[str, ...]:
    line, _, _ = kernel.source.partition(" in ")
    return kernel.phase, kernel.op, kernel.module, line
