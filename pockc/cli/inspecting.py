"""Tables about an artifact, made from its manifest alone: its code is not run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from pockc.cli.console import table
from pockc.cli.text import amount, count, percent, size, sparkline
from pockc.runtime.dtypes import BY_NAME
from pockc.runtime.manifest import InputSpec, Manifest

SHOWN = 30
"""Rows of a table, unless all are asked for."""


_ORDER = ("train_step", "apply_update", "evaluate", "predict")


def entry_names(manifest: Manifest) -> list[str]:
    """Return the entries in the order of their use."""
    known = [n for n in _ORDER if n in manifest.entries]
    return [*known, *(n for n in manifest.entries if n not in known)]


def summary(manifest: Manifest) -> Iterator[str]:
    """Yield lines that say what an artifact is."""
    machine = manifest.machine
    params = [t for t in manifest.tensors.values() if t.kind == "param"]
    total = sum(math.prod(t.shape) for t in params)
    trained = sum(t.trained for t in params)
    yield f"made by     {manifest.producer}"
    yield f"target      {machine.target} ({machine.triple or machine.arch} {machine.cpu})"
    yield f"parameters  {count(total)} in {len(params)} tensors, {count(trained)} trained"
    parts = f" in {manifest.micro_batches} parts" if manifest.micro_batches > 1 else ""
    yield f"batch       {manifest.batch_rows} rows{parts}"
    for name in entry_names(manifest):
        entry = manifest.entries[name]
        takes = ", ".join(map(_spelled, entry.inputs)) or "nothing"
        yield (
            f"{name:<11} {entry.steps} kernel calls, {count(entry.multiply_adds)} "
            f"multiply-adds, takes {takes}"
        )
    if manifest.class_names:
        yield f"classes     {', '.join(manifest.class_names)}"


def _spelled(spec: InputSpec) -> str:
    return f"{spec.name} {spec.dtype}{list(spec.shape)}"


def savings_table(manifest: Manifest) -> Table | None:
    """Return the comparison with full update, None if the artifact has none."""
    lines: Sequence[Mapping[str, Any]] = manifest.report.get("savings", ())
    if not lines:
        return None
    made = table(
        "What is trained, against full update", "", "this", "full", "", right=(1, 2, 3)
    )
    for line in lines:
        sparse, full, unit = line["sparse"], line["full"], line["unit"]
        share = percent(sparse / full) if full else ""
        made.add_row(line["what"], amount(sparse, unit), amount(full, unit), share)
    return made


def scheme_table(manifest: Manifest, shown: int | None = SHOWN) -> Table | None:
    """Return the trained tensors, None if the artifact does not tell them."""
    rows: Sequence[Mapping[str, Any]] = manifest.report.get("scheme", ())
    if not isinstance(rows, list) or not rows:
        return None
    columns = ("tensor", "shape", "trained", "lr x", "because")
    made = table(f"Trained tensors ({len(rows)})", *columns, right=(2, 3))
    for row in rows[:shown]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        trained = count(row["trained"])
        if row["axis"] is not None:
            trained = f"{row['channels']} of {row['shape'][row['axis']]} ch."
        made.add_row(row["name"], shape, trained, f"{row['lr_scale']:g}", row["because"])
    if shown is not None and len(rows) > shown:
        made.add_row(f"... {len(rows) - shown} more: --all")
    made.caption = manifest.report.get("origin")
    return made


def memory_table(manifest: Manifest) -> Table:
    """Return what memory is used for."""
    made = table("Memory, planned", "", "bytes", "", right=(1,))
    report: Mapping[str, Any] = manifest.report.get("memory", {})
    for name, nbytes in report.get("state", _state_by_kind(manifest)).items():
        if name not in ("nbytes", "frozen_nbytes"):
            made.add_row(f"  {name.replace('_', ' ')}", size(nbytes))
    state, frozen = (manifest.memory.get(f"{n}_bytes", 0) for n in ("state", "frozen"))
    made.add_row("state", size(state), "private, lasts between calls")
    made.add_row("frozen", size(frozen), "mapped from the file, loaded where it is read")
    for name in entry_names(manifest):
        entry = manifest.entries[name]
        over = entry.arena_bytes / entry.lower_bound_bytes - 1 if entry.lower_bound_bytes else 0
        note = f"{percent(over)} over the lower bound"
        made.add_row(f"  arena of {name}", size(entry.arena_bytes), note)
    made.add_row(
        "arena", size(manifest.memory.get("arena_bytes", 0)), "private, shared by the entries"
    )
    if "runtime_bytes" in manifest.memory:
        note = "at most: tables, threads, the process that runs it"
        made.add_row("runtime", size(manifest.memory["runtime_bytes"]), note)
    for name, nbytes in sorted(manifest.memory.items()):
        if name not in ("state_bytes", "frozen_bytes", "arena_bytes", "runtime_bytes"):
            made.add_row(name.removesuffix("_bytes").replace("_", " "), size(nbytes))
    return made


def _state_by_kind(manifest: Manifest) -> dict[str, int]:
    sums: dict[str, int] = {}
    for tensor in manifest.tensors.values():
        nbytes = math.prod(tensor.shape) * BY_NAME[tensor.dtype].nbytes
        sums[tensor.kind] = sums.get(tensor.kind, 0) + nbytes
    return sums


def peak_lines(manifest: Manifest) -> Iterator[str]:
    """Yield for each entry what the arena holds when it is fullest, and its use over time."""
    entries: Mapping[str, Any] = manifest.report.get("memory", {}).get("entries", {})
    for name in entry_names(manifest):
        if name not in entries:
            continue
        entry = entries[name]
        parts = [f"{k.replace('_', ' ')} {size(v)}" for k, v in entry["peak"].items() if v]
        where = f" at %{entry['peak_node']}" if entry["peak_node"] else ""
        yield f"{name}: peak{where}: {', '.join(parts)}"
        if entry["peak_source"]:
            yield f"  from {entry['peak_source']}"
        if entry["saved_bytes"]:
            yield f"  {entry['saved_count']} saved activations, {size(entry['saved_bytes'])}"
        yield f"  {sparkline(entry['timeline'])}"


def kernel_table(manifest: Manifest, shown: int | None = SHOWN) -> Table | None:
    """Return the kernels and how often each entry calls them, None if they are not told."""
    kernels: Mapping[str, Mapping[str, int]] = manifest.report.get("kernels", {})
    if not kernels:
        return None
    entries = entry_names(manifest)
    figures = tuple(range(1, len(entries) + 1))
    made = table(f"Kernels ({len(kernels)}), calls", "kernel", *entries, right=figures)
    for symbol, calls in list(kernels.items())[:shown]:
        made.add_row(symbol, *(str(calls.get(e, "")) for e in entries))
    if shown is not None and len(kernels) > shown:
        made.add_row(f"... {len(kernels) - shown} more: --all")
    return made
