"""Records training steps of an artifact of ONNX models, in a process of its own.

    python -m pockc.profile.onnx_steps FOLDER STEPS THREADS FILE    # 0: one per processor

The steps that are timed run without recording; then as many are recorded. Events are told apart
by their place in a run: ONNX Runtime runs the operators of a session in one order.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pockc.errors import UserError
from pockc.process import peak_bytes, resident_bytes
from pockc.profile.onnx_events import Run, read_runs
from pockc.profile.recording import RecordedEntry, Recording
from pockc.runtime import Artifact, load
from pockc.runtime.files import replaced_file
from pockc.runtime.inputs import drawn
from pockc.runtime.onnx_program import OnnxProgram
from pockc.runtime.opening import cpu_name

_SHOWN_STEPS = 3
"""How many of the last steps a trace shows, as `pock-run` does."""

_ENTRIES = ("train_step", "apply_update")


def record(folder: Path, steps: int, threads: int | None = None) -> Recording:
    """Take training steps on random data, at rate 0; nothing is changed in the folder.

    Args:
        folder: The artifact.
        steps: Timed behind the first one; as many more are recorded.
        threads: That run operators; None is one per processor.
    """
    before = resident_bytes() or 0
    with load(folder, threads) as artifact:
        program = artifact._open_library()
        if not isinstance(program, OnnxProgram):
            raise TypeError(f"{folder} holds no ONNX models")
        for name in _ENTRIES:
            if name in program.entries:
                program.prepare(name)
        load_ms = _age_ms()
        rng = np.random.default_rng(0)
        batch = [drawn(s, rng) for s in artifact.train_inputs]
        first, *steady = (_step_ms(artifact, batch) for _ in range(steps + 1))
        peak = peak_bytes() or 0
        runs = _recorded(artifact, program, batch, steps)
        parts = artifact.manifest.micro_batches
        spans, bounds = _spans(runs, parts, range(max(0, steps - _SHOWN_STEPS), steps))
        return Recording(
            step_sha256=artifact.manifest.step_sha256,
            threads=artifact.threads,
            cpu=cpu_name(),
            peak_gflops=0.0,
            peak_gbs=0.0,
            load_ms=load_ms,
            first_step_ms=first,
            step_ms=tuple(steady),
            rss_before_bytes=before,
            rss_peak_bytes=peak,
            measuring_bytes=sum(b.nbytes for b in batch),
            busy_ns=(),
            held_bytes=sum(_held(r) for r in runs.values()),
            entries=tuple(_entry(n, r, parts) for n, r in runs.items()),
            spans=tuple(spans),
            span_steps=tuple(bounds),
        )


def _step_ms(artifact: Artifact, batch: Sequence[object]) -> float:
    begin = time.perf_counter()
    artifact.train_step(*batch, lr=0.0)
    return 1e3 * (time.perf_counter() - begin)


def _recorded(
    artifact: Artifact, program: OnnxProgram, batch: Sequence[object], steps: int
) -> dict[str, list[Run]]:
    """Return the runs of each entry, without those of a first step."""
    with tempfile.TemporaryDirectory(prefix="pockc-record-") as folder:
        program.start_recording(Path(folder))
        for _ in range(steps + 1):
            artifact.train_step(*batch, lr=0.0)
        recorded = program.stop_recording()
        found = {
            n: read_runs(recorded[n].path, recorded[n].start_ns)
            for n in _ENTRIES
            if n in recorded
        }
    return {n: runs[len(runs) // (steps + 1) :] for n, runs in found.items()}


def _held(runs: Sequence[Run]) -> int:
    return max((c.held_bytes for r in runs for c in r.calls), default=0)


def _entry(name: str, runs: Sequence[Run], parts: int) -> RecordedEntry:
    calls = runs[-1].calls
    return RecordedEntry(
        name=name,
        runs=parts if name == _ENTRIES[0] else 1,
        kernels=tuple(c.op for c in calls),
        nodes=tuple(c.name for c in calls),
        ns=tuple(
            tuple(r.calls[at].end_ns - r.calls[at].begin_ns for r in runs)
            for at in range(len(calls))
        ),
        work=tuple(c.work for c in calls),
    )


def _spans(
    runs: Mapping[str, Sequence[Run]], parts: int, shown: range
) -> tuple[list[tuple[int, int, int, int, int]], list[tuple[int, int]]]:
    """Return the calls of some steps and these steps, counted from the first one's begin."""
    spans: list[tuple[int, int, int, int, int]] = []
    bounds = []
    zero = runs[_ENTRIES[0]][shown.start * parts].begin_ns
    for step in shown:
        ran = []
        for number, name in enumerate(runs):
            count = parts if name == _ENTRIES[0] else 1
            for run in runs[name][step * count : (step + 1) * count]:
                ran.append(run)
                spans += [
                    (number, at, 0, c.begin_ns - zero, c.end_ns - zero)
                    for at, c in enumerate(run.calls)
                ]
        bounds.append((ran[0].begin_ns - zero, ran[-1].end_ns - zero))
    return spans, bounds


def _age_ms() -> float:
    """Return how long this process has been there, to a hundredth of a second."""
    # proc(5): behind the name in brackets, which may hold blanks, the start is field 22 of all.
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return 1e3 * (time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def main(folder: str, steps: str, threads: str, file: str) -> int:
    """Write the recording to a file; return the exit status."""
    try:
        recording = record(Path(folder), int(steps), int(threads) or None)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with replaced_file(Path(file), keep_previous=False) as out:
        out.write(recording.model_dump_json().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
