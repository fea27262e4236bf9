"""Joins what was recorded on a machine with what the artifact knows of each call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from statistics import fmean, median

from pockc.artifact import MEMORY, read_details
from pockc.errors import Problem, UserError
from pockc.ir import Graph
from pockc.ir.texts import graph_texts, parse_outline
from pockc.plan import Occupancy, read_occupancy
from pockc.plan.names import kernel_family
from pockc.profile.model import (
    TRAIN_STEP,
    Kernel,
    KernelFacts,
    Machine,
    PlannedMemory,
    Profile,
    Span,
    lower_quartile,
)
from pockc.profile.onnx_join import held_memory, onnx_facts
from pockc.profile.recording import RecordedEntry, Recording
from pockc.profile.work import work_of
from pockc.runtime.manifest import GRAPH_FILE, NATIVE, ONNX, Manifest
from pockc.runtime.opening import read_graph_text, read_manifest


def check_recordable(folder: Path, manifest: Manifest) -> None:
    """Check that pockc runs the steps of an artifact.

    Raises:
        UserError: [no-kernel-times] Another program does.
    """
    if manifest.program not in (NATIVE, ONNX):
        what = (
            f"{folder} is run by ONNX Runtime's training API, whose steps pockc cannot record"
        )
        fix = "compile with --backend tvm or onnx"
        raise UserError(Problem("no-kernel-times", what, fix=fix))


def joined(recording: Recording, folder: Path) -> Profile:
    """Return the profile of an artifact from what was recorded of it.

    Args:
        recording: Of this artifact's program; its weights may be others by now.
        folder: The artifact; it may be for any machine.

    Raises:
        UserError: [no-kernel-times] Another runtime runs it; [foreign-recording] the recording
            is of another artifact; or the folder is no artifact.
    """
    manifest = read_manifest(folder)
    check_recordable(folder, manifest)
    if manifest.step_sha256 != recording.step_sha256:
        what = f"the recording is of another program than {folder} holds"
        fix = "give the artifact that was recorded, or record it again"
        raise UserError(Problem("foreign-recording", what, fix=fix))
    native = manifest.program == NATIVE
    planned = read_occupancy(read_details(folder)[MEMORY]) if native else None
    texts = graph_texts(read_graph_text(folder))
    kernels: list[Kernel] = []
    for entry in recording.entries:
        graph = entry_graph(folder, texts, entry.name)
        if planned is None:
            facts = onnx_facts(entry, graph, texts[entry.name])
        else:
            facts = _facts(entry, graph, planned)
        kernels += _kernels(entry, facts)
    return Profile(
        artifact=folder.resolve().name,
        step_sha256=recording.step_sha256,
        target=manifest.machine.target,
        backend=manifest.program,
        batch_rows=manifest.batch_rows,
        machine=Machine(
            cpu=recording.cpu,
            threads=recording.threads,
            peak_gflops=recording.peak_gflops,
            peak_gbs=recording.peak_gbs,
        ),
        load_ms=recording.load_ms,
        first_step_ms=recording.first_step_ms,
        step_ms=recording.step_ms,
        kernels=tuple(kernels),
        memory=None if planned is None else _memory(manifest, planned),
        held=held_memory(recording, manifest) if planned is None else None,
        rss_before_bytes=recording.rss_before_bytes,
        rss_peak_bytes=recording.rss_peak_bytes,
        measuring_bytes=recording.measuring_bytes,
        busy_ns=recording.busy_ns,
        spans=tuple(_spans(recording)),
        span_steps=recording.span_steps,
    )


def entry_graph(folder: Path, texts: Mapping[str, str], name: str) -> Graph:
    """Return the final graph of an entry, as the artifact's text tells it.

    Args:
        folder: The artifact, for the message.
        texts: Those of its graphs, by entry.
        name: The entry.

    Raises:
        UserError: [damaged-file] The text has no such graph.
    """
    if name in texts:
        return parse_outline(texts[name])
    what = f"{folder / GRAPH_FILE} has no graph of {name}"
    raise UserError(Problem("damaged-file", what, fix="compile the model again"))


def _kernels(recorded: RecordedEntry, facts: Iterable[KernelFacts]) -> Iterator[Kernel]:
    """Yield the calls of an entry with their times."""
    for number, (fact, ns) in enumerate(zip(facts, recorded.ns, strict=True)):
        steps = _by_step(ns, recorded.runs)
        yield Kernel(
            entry=recorded.name,
            call=number,
            runs=recorded.runs,
            **asdict(fact),
            ms=median(steps) * 1e-6,
            low_ms=lower_quartile(steps) * 1e-6,
            min_ms=min(steps) * 1e-6,
            mean_ms=fmean(steps) * 1e-6,
        )


def _facts(recorded: RecordedEntry, graph: Graph, planned: Occupancy) -> Iterator[KernelFacts]:
    entry = planned.entry(recorded.name)
    told = () if entry is None else entry.calls
    if [c.kernel for c in told] != list(recorded.kernels):
        what = f"the recording of {recorded.name} has other kernels than the artifact"
        fix = "give the artifact that was recorded, or record it again"
        raise UserError(Problem("foreign-recording", what, fix=fix))
    for call in told:
        work = work_of(graph, call.kernel, call.node)
        yield KernelFacts(
            symbol=call.kernel,
            family=kernel_family(call.kernel),
            node=call.node,
            op=call.op,
            phase="update" if recorded.name != TRAIN_STEP else call.phase,
            module=call.module,
            source=call.source,
            kind=work.kind,
            flops=work.flops,
            other_flops=work.other_flops,
            nbytes=work.nbytes,
        )


def _by_step(ns: Sequence[int], runs: int) -> list[int]:
    """Return the sums of each step's runs."""
    return [sum(ns[i : i + runs]) for i in range(0, len(ns), runs)]


def _memory(manifest: Manifest, planned: Occupancy) -> PlannedMemory | None:
    step = planned.entry(TRAIN_STEP)
    if step is None:
        return None
    peak = step.peak()
    amounts = dict.fromkeys(("inputs", "saved_activations", "workspace", "temporaries"), 0)
    for block in step.alive(peak):
        amounts[block.category] += block.nbytes
    state = planned.state
    ran = 0 < peak <= len(step.calls)
    return PlannedMemory(
        parameters=state.nbytes - state.optimizer,
        optimizer_state=state.optimizer,
        frozen=state.frozen_nbytes,
        arena=manifest.memory.get("arena_bytes", step.arena_bytes),
        peak_call=peak - 1 if ran else -1,
        peak_node=step.calls[peak - 1].node if ran else "",
        timeline=tuple(step.timeline()),
        **amounts,
    )


def _spans(recording: Recording) -> Iterator[Span]:
    counts = (len(e.kernels) for e in recording.entries)
    first = list(accumulate(counts, initial=0))
    for entry, call, thread, begin, end in recording.spans:
        yield Span(kernel=first[entry] + call, thread=thread, begin_ns=begin, end_ns=end)
