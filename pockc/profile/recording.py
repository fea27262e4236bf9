"""What the runtime writes on the device: raw times, by the number of each kernel call.

`pock-run train --profile` and `pock-run bench --profile` write it without Python; of ONNX
models `onnx_steps` does. `joined` adds what the artifact knows of each call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pockc.profile.files import Strict, read_json

FORMAT: Literal["pock-recording"] = "pock-recording"
VERSION: Literal[1] = 1
_FIX = "record it again: pock-run bench MODEL.pock --profile FILE.json"


class Work(Strict):
    """What a call did.

    Attributes:
        flops: Operations of products and convolutions; a multiply-add is two.
        nbytes: Operands and results, each once.
        live_bytes: What the runtime's allocator had given out behind the call; 0 if unknown.
    """

    flops: int
    nbytes: int
    live_bytes: int


class RecordedEntry(Strict):
    """The calls of one entry over all recorded steps.

    Attributes:
        name: As `train_step`.
        runs: How often it ran in a step: micro-batches.
        kernels: The symbol of each call, in order.
        nodes: The node of each call.
        ns: For each call the nanoseconds of every run, the first recorded step first.
        work: What another runtime says of each call; empty for kernels of our own, whose graph
            tells it.
    """

    name: str
    runs: int
    kernels: tuple[str, ...]
    nodes: tuple[str, ...]
    ns: tuple[tuple[int, ...], ...]
    work: tuple[Work, ...] = ()


class Recording(Strict):
    """A recorded run of some training steps.

    Attributes:
        step_sha256: Hash of the artifact's `step.so`: which program it was.
        threads: Threads that ran kernels.
        cpu: The processor's name.
        peak_gflops: Fused multiply-adds of these threads, 10^9 operations per second; 0 if it
            was not measured.
        peak_gbs: Memory traffic of these threads, 10^9 bytes per second (STREAM's triad); or 0.
        load_ms: From the process's beginning to the open artifact.
        first_step_ms: The first step, which loads pages.
        step_ms: Every steady step.
        rss_before_bytes: Resident memory before the artifact was opened.
        rss_peak_bytes: The most resident memory, steps included.
        measuring_bytes: Of the peak, what only the measuring takes: random input, times.
        busy_ns: By thread, time in kernels during the steady steps; empty if unknown.
        held_bytes: What the allocator of another runtime took from the system; 0 for our own,
            whose arena is planned.
        entries: The calls.
        spans: Single calls of the last recorded steps: entry, call, thread, begin, end;
            nanoseconds from the first one's begin. Thread 0 has the whole call, other
            threads their part of it.
        span_steps: Begin and end of the steps that `spans` shows.
    """

    format: Literal["pock-recording"] = FORMAT
    version: Literal[1] = VERSION
    step_sha256: str
    threads: int
    cpu: str
    peak_gflops: float
    peak_gbs: float
    load_ms: float
    first_step_ms: float
    step_ms: tuple[float, ...]
    rss_before_bytes: int
    rss_peak_bytes: int
    measuring_bytes: int
    busy_ns: tuple[int, ...]
    held_bytes: int = 0
    entries: tuple[RecordedEntry, ...]
    spans: tuple[tuple[int, int, int, int, int], ...]
    span_steps: tuple[tuple[int, int], ...]


def read_recording(path: Path) -> Recording:
    """Return what a device recorded.

    Raises:
        UserError: [profile-file] It is missing, damaged, something else or of another version.
    """
    return read_json(path, Recording, FORMAT, VERSION, _FIX)
