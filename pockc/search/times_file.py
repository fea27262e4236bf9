"""Files that kernel times come from: our own, and the profiles of devices.

Several processes may write one file at the same time: each adds what it measured to what the
file has by then, under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pockc.backends.tvm import cache
from pockc.errors import Problem, UserError
from pockc.profile import Kernel, Profile, lower_quartile, read_profile
from pockc.profile.model import FORMAT as PROFILE
from pockc.profile.work import COPY, Work
from pockc.runtime.files import replaced_file, write_failed
from pockc.runtime.manifest import NATIVE
from pockc.runtime.opening import cpu_name
from pockc.search.kernel_model import Timed
from pockc.search.machines import Peaks

FORMAT = "pock-kernel-times"
VERSION = 1
FILE = "kernel-times.json"
_FIX = "give a file of `pockc profile MODEL.pock --json FILE.json`, or delete it"


@dataclass
class Measured:
    """What was measured on one machine with one number of threads.

    Attributes:
        kernels: By symbol.
        peaks: What the machine reaches at most; None if nobody measured it.
    """

    kernels: dict[str, Timed] = field(default_factory=dict)
    peaks: Peaks | None = None

    def add(self, other: Measured) -> None:
        """Take what another run measured: of both the better, for other work only slows."""
        for symbol, timed in other.kernels.items():
            old = self.kernels.get(symbol)
            if old is None or timed.ms < old.ms:
                self.kernels[symbol] = timed
        if other.peaks is not None:
            known = self.peaks
            self.peaks = other.peaks if known is None else known.or_better(other.peaks)


def default_file() -> Path:
    """Return where this machine's times are kept: beside the kernels."""
    return cache.folder() / FILE


def is_profile(path: Path) -> bool:
    """Return whether a file is a profile, which is read and never written to."""
    return path.exists() and _load(path).get("format") == PROFILE


def read_times(path: Path, key: str) -> Measured:
    """Return what a file has of a machine; a missing file, as one without it, has nothing.

    Args:
        path: One of ours.
        key: The machine, see `machine_key`.

    Raises:
        UserError: [kernel-times] It is damaged, or something else.
    """
    machines = _machines(path)
    return _measured(path, machines[key]) if key in machines else Measured()


def read_given(path: Path, key: str, target: str, threads: int) -> Measured:
    """Return what a file that a user gave has of a machine: ours, or a profile.

    Raises:
        UserError: [kernel-times] It is missing, damaged or of another machine; [profile-file].
    """
    if not path.exists():
        raise _problem(f"there is no file {path}")
    if is_profile(path):
        profile = read_profile(path)
        check_profile(profile, path, target, threads)
        return of_profile(profile)
    machines = _machines(path)
    if key not in machines:
        known = "; ".join(machines) or "none"
        raise _problem(f"{path} has no times of {key}; it has those of: {known}")
    return _measured(path, machines[key])


def check_profile(profile: Profile, path: Path, target: str, threads: int) -> None:
    """Check that a profile is of the machine that is asked for.

    Raises:
        UserError: [kernel-times] It is of another target or processor, or other threads.
    """
    if profile.backend != NATIVE:
        raise _problem(f"{path} is of operators of ONNX Runtime, and not of kernels")
    there = profile.machine
    if profile.target != target or there.threads != threads:
        found = f"target {profile.target} with {there.threads} threads"
        what = f"{path} was recorded for {found}, and not for {target} with {threads}"
        fix = f"add --target {profile.target} --threads {there.threads}, or {_FIX}"
        raise UserError(Problem("kernel-times", what, fix=fix))
    here = cpu_name()
    if target == "host" and there.cpu != here:
        what = f"{path} was recorded on another machine: {there.cpu}, this is {here}"
        fix = "compile with --target for that machine, or measure this one"
        raise UserError(Problem("kernel-times", what, fix=fix))


def kernel_key(symbol: str, work: Work) -> str:
    """Return what a kernel's time is kept under: one copy's code serves all sizes."""
    return f"{symbol} {work.nbytes}" if work.kind == COPY else symbol


def of_profile(profile: Profile) -> Measured:
    """Return the kernels that a profile measured.

    Of the steps, the lower quartile counts: other work makes them slower only. The times are
    scaled to sum up to the step, with what it does between kernels, as they would not: each
    call is quickest in another step. A kernel that is called in several places takes the mean
    of them.
    """
    found: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in profile.kernels:
        found[kernel_key(kernel.symbol, _work(kernel))].append(kernel)
    scale = lower_quartile(profile.step_ms) / sum(k.low_ms for k in profile.kernels)
    kernels = {
        key: Timed(scale * fmean(c.low_ms / c.runs for c in calls), _work(calls[0]))
        for key, calls in found.items()
    }
    peaks = Peaks(profile.machine.peak_gflops, profile.machine.peak_gbs)
    return Measured(kernels, peaks if peaks.is_known else None)


def _work(kernel: Kernel) -> Work:
    return Work(kernel.kind, kernel.flops, kernel.other_flops, kernel.nbytes)


def add_times(path: Path, key: str, measured: Measured) -> None:
    """Add what was measured on a machine to a file, beside what others wrote meanwhile.

    Raises:
        UserError: [kernel-times] The file is damaged; [write-failed].
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            machines = _machines(path)
            known = _measured(path, machines[key]) if key in machines else Measured()
            known.add(measured)
            machines[key] = _as_json(known)
            content = {"format": FORMAT, "version": VERSION, "machines": machines}
            with replaced_file(path, keep_previous=False) as file:
                file.write((json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise write_failed(path, error) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock beside a file; other writers wait.

    The file itself is replaced by every write, so that a lock of its own would be lost.
    """
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _machines(path: Path) -> dict[str, Any]:
    """Return what one of our files has, by machine; nothing if there is no file."""
    if not path.exists():
        return {}
    loaded = _load(path)
    if loaded.get("format") != FORMAT or not isinstance(loaded.get("machines"), dict):
        raise _problem(f"{path} does not hold kernel times")
    if loaded.get("version") != VERSION:
        found = loaded.get("version")
        raise _problem(f"{path} has version {found}, this pockc reads version {VERSION}")
    machines: dict[str, Any] = loaded["machines"]
    return machines


def _load(path: Path) -> Mapping[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _problem(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise _problem(f"{path} does not hold kernel times")
    return loaded


def _measured(path: Path, data: Any) -> Measured:  # noqa: ANN401  what JSON holds
    try:
        kernels = {
            symbol: Timed(_number(ms), Work(str(kind), *map(_count, counts)))
            for symbol, (ms, kind, *counts) in data["kernels"].items()
        }
        peaks = Peaks(*map(_number, data["peaks"])) if data["peaks"] else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _problem(f"{path} is damaged: {error!r}") from error
    return Measured(kernels, peaks)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"expected a positive number, found {value!r}")
    return float(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, found {value!r}")
    return value


def _as_json(measured: Measured) -> dict[str, Any]:
    kernels = {
        symbol: [round(t.ms, 7), *astuple(t.work)] for symbol, t in measured.kernels.items()
    }
    return {
        "kernels": kernels,
        "peaks": None if measured.peaks is None else astuple(measured.peaks),
    }


def _problem(what: str) -> UserError:
    return UserError(Problem("kernel-times", what, fix=_FIX))
