"""Measures the kernels of a scheme on this machine, where they run: inside whole steps."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pockc import driver
from pockc.backends.tvm import targets
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.profile import Profile, joined
from pockc.profile.record import record
from pockc.runtime.opening import instruction_set
from pockc.scheme import Config
from pockc.search.times_file import Measured, of_profile

FIRST_STEPS = 4
"""Of the run that tells how many steps to measure."""
SECONDS, FEWEST, MOST = 2.0, 10, 1000


def measure(captured: Captured, config: Config, options: driver.Options) -> Measured:
    """Compile a scheme, run some of its steps on random data, and return what they took.

    The whole step is run, so that every kernel finds the caches as it will find them; kernels
    that were compiled before come from the cache of objects.

    Raises:
        UserError: [measure] The target is another machine; the configuration cannot be used.
    """
    check_runs_here(options)
    threads = options.threads or targets.get(options.target).cores
    with TemporaryDirectory(prefix="pockc-") as folder:
        path = Path(folder) / "measured.pock"
        driver.build_captured(captured, config, path, options)
        return of_profile(steady_profile(path, threads))


def steady_profile(path: Path, threads: int) -> Profile:
    """Return the profile of an artifact over some seconds of steps on this machine."""
    first = record(path, FIRST_STEPS, threads)
    steps = int(SECONDS * 1e3 / min(first.step_ms))
    return joined(record(path, max(FEWEST, min(MOST, steps)), threads), path)


def check_runs_here(options: driver.Options) -> None:
    """Check that kernels of a target run on this machine.

    Raises:
        UserError: [measure] They do not.
    """
    target = targets.get(options.target)
    here = instruction_set()
    if target.arch != here:
        what = f"kernels for {target.name} ({target.arch}) cannot be measured on this {here}"
        fix = (
            "measure there: pockc profile MODEL.pock --on user@host --json times.json, "
            "then --kernel-times times.json"
        )
        raise UserError(Problem("measure", what, fix=fix))
