"""From finished graphs to `step.so`: choose kernels, plan memory, build, link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pockc import plan
from pockc.backends.base import Job, Kernel, KernelMaker
from pockc.backends.native.device import COMMAND, build_device, link_static
from pockc.backends.native.link import NativeTarget, link
from pockc.backends.native.machine import host_for
from pockc.backends.schedule import DEFAULT, Schedule
from pockc.ir.graph import Graph
from pockc.plan.product import Made, Product
from pockc.runtime.manifest import NATIVE, STEP_FILE, Machine
from pockc.runtime.opening import sha256_of


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """What will run, and where every byte lies, before a kernel is built.

    Attributes:
        entries: The graphs with their calls.
        memory: The plan.
        kernels: The kernels to build, by symbol, in the order of their names.
    """

    entries: tuple[plan.Entry, ...]
    memory: plan.Plan
    kernels: Mapping[str, Kernel]


def plan_kernels(
    maker: KernelMaker,
    graphs: Mapping[str, Graph],
    target: str,
    threads: int,
    schedules: Mapping[str, Schedule] | None = None,
) -> KernelPlan:
    """Choose the kernels of finished graphs and plan their memory."""
    entries: list[plan.Entry] = []
    kernels: dict[str, Kernel] = {}
    for name, graph in graphs.items():
        selection = maker.select(graph, target, threads, schedules or {})
        entries.append(plan.Entry(name, graph, selection.calls))
        kernels |= selection.kernels
    ordered = {k: kernels[k] for k in sorted(kernels)}
    return KernelPlan(tuple(entries), plan.make_plan(entries), ordered)


def emit(
    maker: KernelMaker, graphs: Mapping[str, Graph], job: Job, machine: Machine, threads: int
) -> Product:
    """Return the library of an artifact, linked from the kernels that a backend makes.

    Args:
        maker: Chooses and builds the kernels.
        graphs: The finished entries by name.
        job: What else is known.
        machine: Where the library runs.
        threads: For how many threads the work is divided.
    """
    chosen = plan_kernels(maker, graphs, job.target, threads, job.schedules)
    plan.verify_plan(chosen.entries, chosen.memory)
    objects = maker.build(
        list(chosen.kernels.values()),
        job.target,
        lambda done, total: job.progress("kernels", done, total),
    )
    job.progress("link", 0, 1)
    files = {f.name: f for f in _link(chosen.memory, objects, job, machine)}
    job.progress("link", 1, 1)
    report = _report(chosen.entries, chosen.memory) | _tuning(chosen.kernels, job, threads)
    made = product_of(chosen.memory, files, machine, report)
    runtime = plan.runtime_memory(chosen.memory, host_for(machine.triple, threads))
    memory_map = plan.occupancy(chosen.entries, chosen.memory)
    return replace(
        made,
        memory={**made.memory, "runtime_bytes": runtime.nbytes},
        memory_map=plan.occupancy_text(memory_map),
    )


def _link(
    memory: plan.Plan, objects: Mapping[str, bytes], job: Job, machine: Machine
) -> tuple[Path, ...]:
    """Write `step.so` and the programs that run it on a bare machine; return all of them."""
    library = job.folder / STEP_FILE
    target = NativeTarget.of_llvm(machine.triple)
    link(memory, objects, library, target, job.micro_batches)
    if not job.static:
        return library, *build_device(job.folder, target)
    command = job.folder / COMMAND
    target = NativeTarget.of_llvm(machine.triple, static=True)
    link_static(memory, objects, sha256_of(library), command, target, job.micro_batches)
    return library, command


def product_of(
    memory: plan.Plan,
    files: Mapping[str, Path],
    machine: Machine,
    report: Mapping[str, Any] | None = None,
) -> Product:
    """Return what an artifact is told of a plan and of the files that were linked from it.

    Args:
        memory: The plan.
        files: The files by their names in the artifact.
        machine: What they need of the machine that runs them.
        report: For `inspect`.
    """
    made = tuple(
        Made(
            name=e.name,
            inputs=[(i.role, i.type) for i in e.inputs],
            outputs=[(o.role, o.type) for o in e.outputs],
            steps=len(e.steps),
            arena_bytes=e.arena_bytes,
            lower_bound_bytes=e.lower_bound_bytes,
        )
        for e in memory.entries
    )
    return Product(
        program=NATIVE,
        files=files,
        programs=frozenset(files) - {STEP_FILE},
        machine=machine,
        state=memory.state.slots,
        entries=made,
        memory={
            "state_bytes": memory.state.nbytes,
            "frozen_bytes": memory.state.frozen_nbytes,
            "arena_bytes": memory.arena_bytes,
        },
        report=report or {},
    )


def _tuning(kernels: Mapping[str, Kernel], job: Job, threads: int) -> dict[str, Any]:
    """Return how much of a library was measured, as JSON values."""
    found: dict[str, Any] = {"threads": threads}
    if job.schedules is not None:
        known = [job.schedules[k] for k in kernels if k in job.schedules]
        changed = sum(s != DEFAULT for s in known)
        counts = {"kernels": len(kernels), "measured": len(known), "changed": changed}
        found["tuning"] = counts
    return found


def _report(entries: Sequence[plan.Entry], memory: plan.Plan) -> dict[str, Any]:
    return {
        "memory": plan.report_data(plan.memory_report(entries, memory)),
        "kernels": plan.kernel_calls(memory),
    }
