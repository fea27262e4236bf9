"""A profile as a trace: kernels per thread and planned memory, for Perfetto and chrome://tracing.

The format is Chrome's JSON, the "Trace Event Format"; times in it are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pockc.profile.model import TRAIN_STEP, Kernel, Profile, Span

_PROCESS = 1
_STEPS = 0
"""The track above those of the threads, which has whole steps."""


def trace_text(profile: Profile) -> str:
    """Return the trace of the recorded steps."""
    data = {"displayTimeUnit": "ns", "traceEvents": list(_events(profile))}
    return json.dumps(data, separators=(",", ":")) + "\n"


def _events(profile: Profile) -> Iterator[dict[str, Any]]:
    yield _named("process_name", _STEPS, profile.artifact)
    yield _named("thread_name", _STEPS, "steps")
    for thread in range(profile.machine.threads):
        yield _named("thread_name", thread + 1, f"thread {thread}")
    for number, (begin, end) in enumerate(profile.span_steps, 1):
        yield _complete(f"step {number}", "step", _STEPS, begin, end, {})
    for span in profile.spans:
        kernel = profile.kernels[span.kernel]
        yield _complete(
            kernel.op, kernel.phase, span.thread + 1, span.begin_ns, span.end_ns, _facts(kernel)
        )
        yield from _memory(profile, kernel, span)


def _memory(profile: Profile, kernel: Kernel, span: Span) -> Iterator[dict[str, Any]]:
    """Yield what is alive from a call of the training step on."""
    if span.thread != 0 or kernel.entry != TRAIN_STEP:
        return
    if profile.memory is not None:
        # The timeline begins with the time at which the inputs are filled.
        name, alive = "planned live bytes", profile.memory.timeline[kernel.call + 1]
    elif profile.held is not None and profile.held.peak:
        name, alive = "live bytes", profile.held.timeline[kernel.call]
    else:
        return
    yield {
        "name": name,
        "ph": "C",
        "ts": span.begin_ns / 1e3,
        "pid": _PROCESS,
        "args": {"bytes": alive},
    }


def _facts(kernel: Kernel) -> dict[str, Any]:
    shown = ("symbol", "node", "module", "source", "flops", "nbytes")
    return {name: getattr(kernel, name) for name in shown}


def _complete(
    name: str, category: str, track: int, begin_ns: int, end_ns: int, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category or "kernel",
        "ph": "X",
        "ts": begin_ns / 1e3,
        "dur": (end_ns - begin_ns) / 1e3,
        "pid": _PROCESS,
        "tid": track,
        "args": facts,
    }


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": track, "args": {"name": name}}
