"""The database of measured schedules: a JSON file, sorted, whole at any time."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pockc.backends.schedule import Schedule
from pockc.errors import Problem, UserError

FORMAT = "pock-tuning"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a measurement is true for.

    Attributes:
        kernel: The kernel's symbol, which holds the hash of its text.
        target: What compiled code depends on: processor, vectors, caches.
        threads: Number of threads that the work was divided for.
    """

    kernel: str
    target: str
    threads: int


@dataclass(frozen=True, slots=True)
class Record:
    """What was measured.

    Attributes:
        schedule: The fastest; empty if nothing beat the generator's own rules.
        generator: Version of the generator that made the candidates.
        default_us: Median time of the kernel by the generator's own rules.
        tuned_us: Median time of the fastest, in the same runs.
    """

    schedule: Schedule
    generator: str
    default_us: float
    tuned_us: float


@dataclass(slots=True)
class Database:
    """All records of a file."""

    records: dict[Key, Record] = field(default_factory=dict)

    def schedules(self, target: str, threads: int) -> dict[str, Schedule]:
        """Return the schedules for a target and a number of threads, by kernel."""
        return {
            key.kernel: record.schedule
            for key, record in self.records.items()
            if (key.target, key.threads) == (target, threads)
        }


def read_database(path: Path) -> Database:
    """Return the records of a file.

    Raises:
        UserError: [no-tuning-db] There is no such file; [bad-tuning-db] it is damaged or
            something else; [unknown-choice] a newer or older pockc wrote choices that this one
            does not know.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        fix = f"pockc tune MODEL -o {path}"
        raise UserError(Problem("no-tuning-db", what, fix=fix)) from error
    except ValueError as error:
        raise _damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _damaged(path, f"it does not say that its format is '{FORMAT}'")
    if data.get("format_version") != FORMAT_VERSION:
        found = data.get("format_version")
        raise _damaged(path, f"its version is {found}, this pockc reads {FORMAT_VERSION}")
    entries = data.get("kernels")
    if not isinstance(entries, list):
        raise _damaged(path, "it has no list 'kernels'")
    return Database(dict(_entry(path, i, entry) for i, entry in enumerate(entries)))


def _entry(path: Path, number: int, entry: Any) -> tuple[Key, Record]:  # noqa: ANN401  JSON
    where = f"entry {number}"
    if not isinstance(entry, dict):
        raise _damaged(path, f"{where} is not an object")
    kinds: Mapping[str, tuple[type, ...]] = {
        "kernel": (str,), "target": (str,), "threads": (int,), "generator": (str,),
        "schedule": (dict,), "default_us": (int, float), "tuned_us": (int, float),
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(entry.get(name), kind):
            raise _damaged(path, f"{where} has no '{name}' of type {kind[-1].__name__}")
    try:
        schedule = Schedule.of(entry["schedule"])
    except ValueError as error:
        what = f"{path}: {where} ({entry['kernel']}): {error}"
        fix = "tune again with this version of pockc, or install the one that wrote the file"
        raise UserError(Problem("unknown-choice", what, fix=fix)) from error
    key = Key(entry["kernel"], entry["target"], entry["threads"])
    times = (float(entry["default_us"]), float(entry["tuned_us"]))
    return key, Record(schedule, entry["generator"], *times)


def _damaged(path: Path, why: str) -> UserError:
    fix = "give a file that `pockc tune` wrote, or remove it and tune again"
    return UserError(Problem("bad-tuning-db", f"{path} is no tuning database: {why}", fix=fix))


def write_database(path: Path, database: Database) -> None:
    """Write all records; the file is the old one or the new one, never half of it."""
    entries = [
        {
            "kernel": key.kernel,
            "target": key.target,
            "threads": key.threads,
            "generator": record.generator,
            "schedule": record.schedule.choices,
            "default_us": round(record.default_us, 2),
            "tuned_us": round(record.tuned_us, 2),
        }
        for key, record in sorted(database.records.items(), key=lambda item: item[0])
    ]
    data = {"format": FORMAT, "format_version": FORMAT_VERSION, "kernels": entries}
    handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(data, indent=1) + "\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
