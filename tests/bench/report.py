"""Tables of results: for the terminal, as Markdown, and in the README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import DOUBLINGS
from tests.bench.peers import OURS, OURS_ONNX, PEERS, TRAINED_BY_ORT
from tests.bench.results import CaseResult, Measured, Results, losses_agree, paired_ratio

MIB = 2.0**20
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


@dataclass(frozen=True)
class Grid:
    """A table as text; the first `names` columns are names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    names: int = 1


def summary(results: Results) -> Grid:
    """Return a line per case: pockc beside the fastest and the smallest of the others."""
    columns = (
        "workload", "update", "step ms", "fastest other, ms", "time", "memory MiB",
        "smallest other, MiB", "memory", "of FMA peak",
    )  # fmt: skip
    rows = [r for c in results.cases if (r := _summary_row(c)) is not None]
    return Grid("pockc and the best of the others", columns, rows, names=2)


def _summary_row(case: CaseResult) -> tuple[str, ...] | None:
    ours, fastest, smallest = case.of(OURS), case.fastest, case.smallest
    if ours is None or fastest is None or smallest is None:
        return None
    return (
        case.title,
        case.mode,
        number(ours.median_ms),
        f"{fastest.peer} {number(fastest.median_ms)}",
        f"{paired_ratio(ours, fastest):.2f}",
        mib(ours.peak_bytes),
        f"{smallest.peer} {mib(smallest.peak_bytes)}",
        f"{ours.peak_bytes / smallest.peak_bytes:.2f}",
        f"{100 * case.share_of_peak(ours):.0f} %",
    )


def through_onnx(results: Results) -> Grid:
    """Return a line per case: the backend `onnx` beside ONNX Runtime's own training."""
    columns = (
        "workload", "update", "pockc-onnx ms", "ort ms", "time", "torch ms", "pockc ms",
        "pockc-onnx MiB", "ort MiB", "memory", "torch MiB", "pockc MiB",
    )  # fmt: skip
    rows = [r for c in results.cases if (r := _onnx_row(c)) is not None]
    return Grid("The backend onnx", columns, rows, names=2)


def _onnx_row(case: CaseResult) -> tuple[str, ...] | None:
    ours = case.of(OURS_ONNX)
    if ours is None:
        return None
    ort, others = case.of(TRAINED_BY_ORT), [case.of(n) for n in ("torch", OURS)]
    time = "" if ort is None else f"{paired_ratio(ours, ort):.2f}"
    memory = "" if ort is None else f"{ours.peak_bytes / ort.peak_bytes:.2f}"
    times = ["" if m is None else number(m.median_ms) for m in (ours, ort, *others)]
    sizes = ["" if m is None else mib(m.peak_bytes) for m in (ours, ort, *others)]
    return (case.title, case.mode, *times[:2], time, *times[2:], *sizes[:2], memory, *sizes[2:])


def details(results: Results) -> Grid:
    """Return a line per case and peer with all that was measured."""
    columns = (
        "workload", "update", "peer", "median ms", "min ms", "p90 ms", "pockc's time",
        "of FMA peak", "memory MiB", "with start MiB", "first step s", "compile s",
        "model MiB", "packages MiB", "first loss",
    )  # fmt: skip
    rows = [_detail_row(c, m) for c in results.cases for m in c.peers]
    return Grid("All figures", columns, rows, names=3)


def _detail_row(case: CaseResult, m: Measured) -> tuple[str, ...]:
    if m.failed:
        return (case.title, case.mode, m.peer, f"left out: {m.failed}", *[""] * 11)
    ours = case.of(OURS)
    return (
        case.title,
        case.mode,
        f"{m.peer} {m.version}",
        number(m.median_ms),
        number(m.min_ms),
        number(m.p90_ms),
        "" if ours is None else f"{paired_ratio(ours, m):.2f}",
        f"{100 * case.share_of_peak(m):.0f} %",
        mib(m.peak_bytes),
        mib(m.peak_with_start_bytes),
        f"{m.first_step_s:.2f}",
        f"{m.compile_s:.1f}" if m.compile_s else "",
        mib(m.artifact_bytes),
        mib(m.runtime_bytes),
        f"{m.first_loss:.5f}",
    )


def machine_grid(results: Results) -> Grid:
    """Return what the machine reached at each case."""
    columns = ("workload", "update", "FMA GFLOP/s", "triad GB/s", "GFLOP of a step")
    rows: list[tuple[str, ...]] = [
        (c.title, c.mode, number(c.peak.gflops), number(c.peak.triad_gbs), number(c.gflop))
        for c in results.cases
    ]
    return Grid("The machine, measured with each case", columns, rows, names=2)


def growth(results: Results) -> Grid:
    """Return how time and memory grow when one size is doubled, beside the arithmetic."""
    columns = ("from", "doubled", "peer", "arithmetic x", "time x", "memory x")
    cases = {c.key: c for c in results.cases}
    rows: list[tuple[str, ...]] = []
    for size, small, large in DOUBLINGS:
        before, after = cases.get(small.key), cases.get(large.key)
        if before is not None and after is not None:
            rows += _growth_rows(size, before, after)
    return Grid("What doubling a size costs", columns, rows, names=3)


def _growth_rows(size: str, before: CaseResult, after: CaseResult) -> list[tuple[str, ...]]:
    rows = []
    for m in after.peers:
        small = before.of(m.peer)
        if small is None or m.failed:
            continue
        factors = (
            after.gflop / before.gflop,
            m.median_ms / small.median_ms,
            m.peak_bytes / small.peak_bytes,
        )
        rows.append((before.title, size, m.peer, *(f"{x:.2f}" for x in factors)))
    return rows


def grids(results: Results) -> list[Grid]:
    """Return every table that has rows."""
    made = (
        summary(results),
        through_onnx(results),
        details(results),
        growth(results),
        machine_grid(results),
    )
    return [g for g in made if g.rows]


def problems(results: Results) -> list[str]:
    """Return what makes results no comparison: a failure of ours, or losses that differ."""
    found = []
    for case in results.cases:
        found += [
            f"{case.key}: {m.peer} was not measured: {m.failed}"
            for m in case.peers
            if m.peer in (OURS, OURS_ONNX) and m.failed
        ]
        if not losses_agree(case.peers):
            losses = ", ".join(f"{m.peer} {m.first_loss}" for m in case.peers if not m.failed)
            found.append(f"{case.key}: the first losses differ: {losses}")
    return found


def markdown(grid: Grid) -> str:
    """Return a table as Markdown."""
    marks = ["---" if i < grid.names else "---:" for i in range(len(grid.columns))]
    lines = [_line(grid.columns), _line(marks), *map(_line, grid.rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def document(results: Results) -> str:
    """Return all tables as a Markdown page."""
    parts = [f"# Benchmark\n\n{heading(results)}\n", _peer_list(results)]
    parts += [f"## {g.title}\n\n{markdown(g)}" for g in grids(results)]
    return "\n".join(parts)


def heading(results: Results) -> str:
    """Return in a line where and when it was measured."""
    what = f"{results.threads} threads, f32, SGD"
    return f"{results.date}, {results.machine}; {what}; pockc at {results.revision}."


def _peer_list(results: Results) -> str:
    used = dict.fromkeys(m.peer for c in results.cases for m in c.peers)
    return "\n".join(f"- {p}: {PEERS[p].title}" for p in used if p in PEERS) + "\n"


ONNX_CAPTION = (
    "The [backend onnx](backends/onnx/README.md) in a stock ONNX Runtime; *time* and *memory* "
    "are its as a part of\nONNX Runtime training's (`ort`)."
)


def readme_section(results: Results) -> str:
    """Return what stands between the marks of the README."""
    others = dict.fromkeys(m.peer for c in results.cases for m in c.peers if not m.failed)
    titles = "; ".join(f"{p}: {PEERS[p].title}" for p in others if p in PEERS and p != OURS)
    onnx = through_onnx(results)
    second = f"\n{ONNX_CAPTION}\n\n{markdown(onnx)}" if onnx.rows else ""
    return (
        f"{markdown(summary(results))}{second}\n"
        f"{heading(results)}\nOthers: {titles}. Memory is the peak of the steps above the "
        "process after its imports.\n"
    )


def insert_section(text: str, section: str) -> str:
    """Return a text with what stands between its marks replaced.

    Raises:
        ValueError: The text has not exactly one pair of marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one line {BEGIN} and after it one line {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{section}{END}{after}"


def write_document(results: Results, path: Path) -> None:
    """Write all tables as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(results), encoding="utf-8")


def number(value: float) -> str:
    """Return a figure with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def mib(nbytes: int) -> str:
    """Return bytes in MiB with three digits."""
    return number(nbytes / MIB)
