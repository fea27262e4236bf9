"""`python -m tests.bench`: the command line of the benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pockc.cli.console import say, warn
from tests.bench.cases import MODES, WORKLOADS, Case

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
SCRATCH = ROOT / ".bench"

app = typer.Typer(
    name="python -m tests.bench",
    help="Time and memory of training steps: pockc against other frameworks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads that compute.")]
SizeOption = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="NAME=N", help="Another size, as resolution=160."),
]


@app.callback()
def _main() -> None:
    """Time and memory of training steps: pockc against other frameworks."""


def _sizes(given: list[str] | None, batch: int | None) -> dict[str, int]:
    sizes = {} if batch is None else {"batch": batch}
    for text in given or ():
        name, mark, number = text.partition("=")
        if not mark or not number.isdecimal():
            raise typer.BadParameter(f"expected NAME=N, found {text!r}", param_hint="--size")
        sizes[name] = int(number)
    return sizes


def _workload(name: str) -> str:
    if name not in WORKLOADS:
        raise typer.BadParameter(f"choose from: {', '.join(WORKLOADS)}", param_hint="WORKLOAD")
    return name


def _mode(name: str) -> str:
    if name not in MODES:
        raise typer.BadParameter(f"choose from: {', '.join(MODES)}", param_hint="--mode")
    return name


def _show(made: Table) -> None:
    """Write a table; into a file as wide as it needs to be."""
    console = Console()
    Console(width=None if console.is_terminal else 400).print(made)


@app.command("profile")
def profile_(  # noqa: PLR0917  one parameter per option
    workload: Annotated[str, typer.Argument(callback=_workload, help="As W1.")],
    mode: Annotated[str, typer.Option(callback=_mode, help="full or sparse.")] = "full",
    batch: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    size: SizeOption = None,
    threads: ThreadsOption = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps; their median counts.")] = 10,
    shown: Annotated[int, typer.Option("--top", min=1, help="Kernels to show.")] = 40,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Every call, as JSON.")
    ] = None,
) -> None:
    """Compile a workload and show the kernels of its train step by time.

    Example: python -m tests.bench profile W1 --batch 8 --mode sparse
    """
    from pockc import runtime
    from tests.bench import profiling
    from tests.bench.compiling import compile_case
    from tests.bench.machine import measure_peak
    from tests.bench.values import make_batch

    case = Case(workload, mode, _sizes(size, batch))
    path = SCRATCH / "profile" / f"{case.key}.pock"
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    warn(f"{case.title}, {mode}: compile")
    seconds = compile_case(case, path, threads)
    warn(f"compiled in {seconds:.1f} s; measure")
    peak = measure_peak(threads)
    with runtime.load(path, threads=threads) as artifact:
        lines = profiling.profile(artifact, make_batch(case.spec), steps)
        memory = artifact.memory
    for made in profiling.tables(lines, peak, shown):
        _show(made)
    say(
        f"{threads} threads; peak {peak.gflops:.1f} GFLOP/s FMA, triad {peak.triad_gbs:.1f} GB/s; "
        f"planned {memory.state_bytes / 2**20:.1f} MiB state + "
        f"{memory.arena_bytes / 2**20:.1f} MiB arena"
    )
    if json_file is not None:
        profiling.write_json(lines, json_file)
        say(f"wrote {json_file}")


if __name__ == "__main__":
    app()
