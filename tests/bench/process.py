"""A measured process: started, told to take its turns, ended."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.peers import ROOT, Peer, Unavailable, last_words

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """What a process is started for.

    Attributes:
        python: The interpreter.
        folder: Of the case's files.
        threads: That compute.
        limit_s: It fails if an answer takes longer.
    """

    python: Path
    folder: Path
    threads: int
    limit_s: float = 600.0


class Process:
    """A running worker; it has taken its first step when this returns.

    Attributes:
        ready: Its answer to that: loss, first_step_s, version and more.
    """

    def __init__(self, peer: Peer, job: Job, **options: object) -> None:
        """Start it.

        Raises:
            Unavailable: It ended or gave no answer; with its last words.
        """
        self._log = job.folder / f"{peer.name}.log"
        self._limit_s = job.limit_s
        given = {"folder": str(job.folder), "threads": job.threads}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                worker_command(peer.module, job.python, {**given, **peer.options, **options}),
                cwd=job.folder,
                env={**environment(job.threads), **peer.variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self.ready = self._answer()
        except BaseException:
            self.stop()
            raise

    def turn(self, seconds: float, least: int, most: int) -> dict[str, Any]:
        """Take one untimed step, then timed ones; return times, loss and peak."""
        return self._ask({"seconds": seconds, "least": least, "most": most})

    def runtime_bytes(self) -> int:
        """Return the size of the packages that it has loaded."""
        return int(self._ask("sizes")["runtime_bytes"])

    def stop(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, question: object) -> dict[str, Any]:
        stdin = self._process.stdin
        if stdin is None or self._process.poll() is not None:
            raise Unavailable(self._why("ended"))
        stdin.write(json.dumps(question).encode() + b"\n")
        stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None:
            raise Unavailable("it was stopped")
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._limit_s):
                raise Unavailable(f"no answer in {self._limit_s:.0f} s")
        line = stdout.readline()
        if not line:
            self._process.wait()
            raise Unavailable(self._why(f"ended with status {self._process.returncode}"))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self, what: str) -> str:
        return f"{what}: {last_words(self._log.read_text(encoding='utf-8', errors='replace'))}"


def worker_command(module: str, python: Path, options: dict[str, object]) -> list[str]:
    """Return the command that runs a module of `tests.bench.workers`."""
    return [str(python), "-m", f"tests.bench.workers.{module}", json.dumps(options)]


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a measured process."""
    numbers = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**os.environ, **numbers, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
