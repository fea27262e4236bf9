"""What the report of an artifact tells, section by section."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pockc.ir import TensorType
from pockc.plan import COPY_KERNEL
from pockc.profile import Profile
from pockc.report.graphs import CAPTURED, FINAL, read_stage, stage_names
from pockc.report.memory import arena_figure, memory_figure
from pockc.report.net import columns, net_svg
from pockc.report.page import Cell, Heading, Page, Part, Rows, Section, Tile, page_html
from pockc.report.style import milliseconds, page_svg, unit_of
from pockc.report.subject import Subject
from pockc.report.time_pictures import modules_figure, roofline_figure


@dataclass(frozen=True)
class Reported:
    """An artifact of a report, with a profile if it was measured."""

    subject: Subject
    profile: Profile | None = None

    @property
    def name(self) -> str:
        """The artifact's name."""
        return self.subject.name


def report_html(shown: Sequence[Reported]) -> str:
    """Return the report of one artifact, or of several beside each other.

    Raises:
        UserError: A package is missing, or what an artifact holds is damaged.
    """
    first = shown[0].subject.manifest
    machines = dict.fromkeys(r.subject.manifest.machine.target for r in shown)
    measured = dict.fromkeys(
        f", measured on {r.profile.machine.cpu} with {r.profile.machine.threads} threads"
        for r in shown
        if r.profile is not None
    )
    page = Page(
        title=" and ".join(r.name for r in shown) + ": the training step",
        subtitle=f"for {', '.join(machines)}{''.join(measured)}; {first.producer}",
        producer=first.producer,
        sections=tuple(_sections(shown)),
    )
    return page_html(page)


def _sections(shown: Sequence[Reported]) -> Iterator[Section]:
    yield Section("summary", "Summary", [_summary(r, shown[-1]) for r in shown])
    yield Section("net", "What is trained", _parts(shown, _net))
    note = "Private memory. Frozen weights are mapped from the artifact's file besides."
    yield Section("memory", "Memory over the step", list(_memory(shown)), note)
    note = "A box is a value: its bytes, from the call that makes it to the last that reads it."
    yield Section("arena", "Arena", _parts(shown, _arena), note)
    yield Section("modules", "Time by module", _parts(shown, _modules))
    yield Section("roofline", "Roofline", _parts(shown, _roofline))
    yield Section("kernels", "Kernels", [Part(r.name, table=_kernels(r)) for r in shown])
    yield Section("tensors", "Trained tensors", _parts(shown, _tensors))


def _parts(
    shown: Sequence[Reported], make: Callable[[Reported, int], Part | None]
) -> list[Part]:
    found = (make(r, at) for at, r in enumerate(shown))
    return [part for part in found if part is not None]


def _summary(r: Reported, last: Reported) -> Part:
    """Return the figures of an artifact; beside another one, also as parts of the last one."""
    tiles = []
    others = {} if r is last else dict(_figures(last))
    for what, (value, shown, note) in _figures(r):
        ratio = ""
        if what in others and others[what][0]:
            ratio = f"{100 * value / others[what][0]:.3g} % of {last.name}"
        tiles.append(Tile(what, shown, " · ".join(filter(None, (ratio, note)))))
    return Part(r.name, tiles)


Figure = tuple[float, str, str]


def _figures(r: Reported) -> Iterator[tuple[str, Figure]]:
    """Yield what the summary tells: a name, the value, how it is shown, a note."""
    manifest, memory = r.subject.manifest, r.subject.manifest.memory
    params = [t for t in manifest.tensors.values() if t.kind == "param"]
    total, trained = sum(math.prod(t.shape) for t in params), sum(t.trained for t in params)
    share = f"{100 * trained / total:.3g} % of {_count(total)}" if total else ""
    yield "trained parameters", (trained, _count(trained), share)
    state, arena = memory.get("state_bytes", 0), memory.get("arena_bytes", 0)
    if arena:
        note = f"state {_size(state)}, arena {_size(arena)}"
        yield "planned memory", (state + arena, _size(state + arena), note)
        yield "frozen, mapped", (*_sized(memory.get("frozen_bytes", 0)), "")
    step = manifest.entries["train_step"]
    yield "multiply-adds of a step", (step.multiply_adds, _count(step.multiply_adds), "")
    yield "kernel calls", (step.steps, str(step.steps), f"batch of {manifest.batch_rows}")
    profile = r.profile
    if profile is None:
        return
    phases = profile.phase_ms()
    parts = ", ".join(f"{p} {milliseconds(ms)}" for p, ms in phases.items() if ms)
    yield (
        "step",
        (
            profile.median_ms,
            milliseconds(profile.median_ms),
            f"p95 {milliseconds(profile.p95_ms)}",
        ),
    )
    yield "parts of the step", (sum(phases.values()), milliseconds(sum(phases.values())), parts)
    first, load = profile.first_step_ms, profile.load_ms
    yield "first step", (first, milliseconds(first), f"load {milliseconds(load)}")
    yield "memory of the process", (*_sized(profile.rss_peak_bytes), "most resident")
    balance = [f"{100 * share:.0f} %" for share in profile.balance()]
    yield "threads in kernels", (len(balance), str(len(balance)), ", ".join(balance))


def _net(r: Reported, at: int) -> Part | None:
    del at
    if CAPTURED not in stage_names(r.subject):
        return None
    stage = read_stage(r.subject, CAPTURED)
    title = f"{r.name}: what a training step computes"
    return Part(r.name, svg=net_svg(title, columns(stage, r.subject.sizes()), in_page=True))


def _memory(shown: Sequence[Reported]) -> Iterator[Part]:
    """Yield memory over the step of each artifact, all to one scale."""
    planned = [r for r in shown if r.subject.memory is not None]
    top = max((r.subject.planned_bytes() for r in planned), default=0)
    for at, r in enumerate(planned):
        svg = page_svg(memory_figure([r.subject], top_bytes=top), f"memory{at}")
        yield Part(r.name, svg=svg)


def _arena(r: Reported, at: int) -> Part | None:
    if r.subject.memory is None:
        return None
    made, tips = arena_figure(r.subject)
    return Part(r.name, svg=page_svg(made, f"arena{at}", tips))


def _modules(r: Reported, at: int) -> Part | None:
    if r.profile is None:
        return None
    return Part(r.name, svg=page_svg(modules_figure(r.name, r.profile), f"modules{at}"))


def _roofline(r: Reported, at: int) -> Part | None:
    if r.profile is None or not any(k.flops for k in r.profile.kernels):
        return None
    made, tips = roofline_figure(r.name, r.profile)
    return Part(r.name, svg=page_svg(made, f"roofline{at}", tips))


def _kernels(r: Reported) -> Rows | None:
    return _planned_kernels(r.subject) if r.profile is None else _timed_kernels(r.profile)


def _timed_kernels(profile: Profile) -> Rows:
    """Return the kernel calls by time."""
    total = sum(k.ms for k in profile.kernels) or 1.0
    longest = max((k.ms for k in profile.kernels), default=1.0) or 1.0
    titles = ("call", "operations", "module", "ms", "share", "GFLOP/s", "GB/s", "of roofline")
    numbers = {"call", "ms", "share", "GFLOP/s", "GB/s", "of roofline"}
    rows = []
    for number, k in sorted(enumerate(profile.kernels, 1), key=lambda nk: -nk[1].ms):
        reached = k.roofline(profile.machine)
        roof = -1.0 if reached is None else 100 * reached
        rows.append(
            (
                Cell(str(number), number),
                Cell(k.op, code=True, small=k.symbol, dot=k.phase),
                Cell(k.module, small=k.source),
                Cell(f"{k.ms:.3g}", k.ms, 100 * k.ms / longest),
                Cell(f"{100 * k.ms / total:.1f} %", k.ms / total),
                Cell(f"{k.gflops:.1f}" if k.flops else "", k.gflops),
                Cell(f"{k.gbs:.1f}", k.gbs),
                Cell(f"{roof:.0f} %" if roof >= 0 else "", roof),
            )
        )
    return Rows([Heading(t, t in numbers, t == "ms") for t in titles], rows)


def _planned_kernels(subject: Subject) -> Rows | None:
    """Return the calls of a plan, where nothing was measured."""
    if subject.memory is None:
        return None
    _, step = subject.planned()
    graph = read_stage(subject, FINAL).graph
    rows = []
    for number, call in enumerate(step.calls, 1):
        made = "" if call.kernel == COPY_KERNEL else _shape(graph.type_of(call.node))
        rows.append(
            (
                Cell(str(number), number),
                Cell(call.op, code=True, small=call.kernel, dot=call.phase),
                Cell(call.module, small=call.source),
                Cell(made, whole=True),
            )
        )
    heads = [Heading("call", number=True), Heading("operations"), Heading("module")]
    return Rows([*heads, Heading("result")], rows)


def _shape(tensor: TensorType) -> str:
    return f"{tensor.dtype.value} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _tensors(r: Reported, at: int) -> Part | None:
    del at
    scheme: Sequence[Mapping[str, Any]] = r.subject.manifest.report.get("scheme", ())
    if not isinstance(scheme, list) or not scheme:
        return None
    rows = []
    for row in scheme:
        total = math.prod(row["shape"]) or 1
        share = 100 * row["trained"] / total
        rows.append(
            (
                Cell(row["name"], code=True),
                Cell("x".join(map(str, row["shape"])) or "scalar"),
                Cell(f"{row['trained']}", row["trained"]),
                Cell(f"{share:.3g} %", share, share),
                Cell(f"{row['lr_scale']:g}", row["lr_scale"]),
                Cell(row["because"]),
            )
        )
    titles = ("tensor", "shape", "trained", "share", "lr x", "because")
    numbers = {"trained", "share", "lr x"}
    return Part(r.name, table=Rows([Heading(t, t in numbers) for t in titles], rows))


def _sized(nbytes: int) -> tuple[float, str]:
    return nbytes, _size(nbytes)


def _size(nbytes: float) -> str:
    size, unit = unit_of(nbytes)
    return f"{nbytes / size:.3g} {unit}"


def _count(number: float) -> str:
    for unit in ("", " K", " M", " G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"
