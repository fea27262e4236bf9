"""Profiles of compiled artifacts for tests of reports, measured by the runtime's step hook."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from pockc.profile import Profile, Recording, joined
from pockc.profile.recording import RecordedEntry
from pockc.report.subject import read_subject
from pockc.runtime import load
from pockc.runtime.dtypes import BY_NAME
from pockc.runtime.manifest import STEP_FILE
from pockc.runtime.timing import step_times


def measured(folder: Path) -> Profile:
    """Return the profile of an artifact, from a few steps of zeros on this machine."""
    subject = read_subject(folder)
    _, step = subject.planned()
    began = time.perf_counter()
    with load(folder, threads=1) as artifact:
        load_ms = (time.perf_counter() - began) * 1e3
        batch = [np.zeros(s.shape, BY_NAME[s.dtype].numpy) for s in artifact.train_inputs]
        taken = step_times(artifact, batch, 5)["train_step"]
    ns = tuple((max(1, round(ms * 1e6)),) for ms in taken)
    recording = Recording(
        format="pock-recording",
        version=1,
        step_sha256=subject.manifest.files[STEP_FILE].sha256,
        threads=1,
        cpu="a test's processor",
        peak_gflops=60.0,
        peak_gbs=12.0,
        load_ms=load_ms,
        first_step_ms=2 * sum(taken),
        step_ms=(sum(taken),) * 3,
        rss_before_bytes=1 << 20,
        rss_peak_bytes=3 << 20,
        batch_bytes=0,
        busy_ns=(round(2.9e6 * sum(taken)),),
        entries=(
            RecordedEntry(
                name="train_step",
                runs=1,
                kernels=tuple(c.kernel for c in step.calls),
                nodes=tuple(c.node for c in step.calls),
                ns=ns,
            ),
        ),
        spans=(),
        span_steps=(),
    )
    return joined(recording, folder)
