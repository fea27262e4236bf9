"""From finished graphs to `step.so`: choose kernels, plan memory, build, link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pockc import plan
from pockc.backends.base import Job, Kernel, KernelMaker
from pockc.backends.native.link import NativeTarget, link
from pockc.ir.graph import Graph
from pockc.plan.product import Made, Product
from pockc.runtime.manifest import NATIVE, STEP_FILE, Machine


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
    entries: list[plan.Entry] = []
    kernels: dict[str, Kernel] = {}
    for name, graph in graphs.items():
        selection = maker.select(graph, job.target, threads)
        entries.append(plan.Entry(name, graph, selection.calls))
        kernels |= selection.kernels
    objects = maker.build(
        [kernels[k] for k in sorted(kernels)],
        job.target,
        lambda done, total: job.progress("kernels", done, total),
    )
    memory = plan.make_plan(entries)
    plan.verify_plan(entries, memory)
    library = job.folder / STEP_FILE
    job.progress("link", 0, 1)
    link(memory, objects, library, NativeTarget.of_llvm(machine.triple), job.micro_batches)
    job.progress("link", 1, 1)
    return product_of(memory, library, machine, _report(entries, memory))


def product_of(
    memory: plan.Plan, library: Path, machine: Machine, report: Mapping[str, Any] | None = None
) -> Product:
    """Return what an artifact is told of a plan and the library that was linked from it."""
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
        files={STEP_FILE: library},
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


def _report(entries: Sequence[plan.Entry], memory: plan.Plan) -> dict[str, Any]:
    return {
        "memory": plan.report_data(plan.memory_report(entries, memory)),
        "kernels": plan.kernel_calls(memory),
    }
