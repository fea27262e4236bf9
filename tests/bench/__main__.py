"""`python -m tests.bench`: the command line of the benchmark."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pockc.cli.console import progress_bar, say, table, warn
from tests.bench import report
from tests.bench.cases import MODES, SETS, WORKLOADS, Case
from tests.bench.peers import PACKAGES, PEERS, ROOT, SCRATCH
from tests.bench.results import CaseResult, Results, merge, read_results, write_results

if TYPE_CHECKING:
    from tests.bench.measuring import Settings

RESULTS = ROOT / "results"
QUICK_PEERS = tuple(p for p in PEERS if p != "torch-compile")

app = typer.Typer(
    name="python -m tests.bench",
    help="Time and memory of training steps: pockc against other frameworks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads that compute.")]
OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the results.")
]


@app.callback()
def _main() -> None:
    """Time and memory of training steps: pockc against other frameworks."""


@app.command()
def run(  # noqa: PLR0917  one parameter per option
    sets: Annotated[
        list[str], typer.Option("--set", help=f"Of {', '.join(SETS)}; again for several.")
    ] = ["main"],  # noqa: B006  typer copies it
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only these cases of the sets, as 'W1*sparse'."),
    ] = None,
    peers: Annotated[
        str, typer.Option(metavar="NAMES", help=f"Of {','.join(PEERS)}.")
    ] = ",".join(PEERS),
    rounds: Annotated[int, typer.Option(min=1, help="Turns of everyone.")] = 5,
    seconds: Annotated[float, typer.Option(min=0, help="Length of a turn.")] = 1.5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a turn, at least.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two short rounds, without torch.compile.")
    ] = False,
    threads: ThreadsOption = 2,
    pythons: Annotated[
        list[str] | None,
        typer.Option(
            "--python",
            metavar="ENV=FILE",
            help=f"An interpreter that has it already; of {', '.join(PACKAGES)}.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep other cases of the last run in the results.")
    ] = False,
    output: OutputOption = RESULTS,
) -> None:
    """Measure the peers on the cases, in turn, and write tables and a chart.

    Example: python -m tests.bench run --set families --only 'resnet*' --peers pockc,torch-tuned
    """
    from tests.bench.measuring import Settings

    cases = _cases(sets, only)
    names = QUICK_PEERS if quick and peers == ",".join(PEERS) else _names(peers)
    if quick:
        rounds, seconds = 2, 0.5
    interpreters = dict(_pair(text, "--python") for text in pythons or ())
    settings = Settings(threads, rounds, seconds, least=steps, interpreters=interpreters)
    found = _measure(cases, names, settings)
    path = output / "benchmark.json"
    results = merge(read_results(path), found) if keep and path.exists() else found
    write_results(results, path)
    _write_tables(results, output)
    for grid in (report.summary(found), report.through_onnx(found), report.growth(found)):
        if grid.rows:
            _show(_table_of(grid))
    wrong = report.problems(found)
    for text in wrong:
        warn(text)
    say(f"all figures are in {output / 'benchmark.md'}; {path}, benchmark.png")
    raise typer.Exit(1 if wrong else 0)


def _measure(cases: Sequence[Case], names: Sequence[str], settings: Settings) -> Results:
    """Measure the cases one by one, and show how far that is."""
    from tests.bench.machine import description
    from tests.bench.measuring import measure_case, revision

    peers, measured = [PEERS[n] for n in names], list[CaseResult]()
    with progress_bar() as bar:
        for at, case in enumerate(cases):
            bar.update("cases", at, len(cases), case.key)

            def note(text: str, at: int = at, key: str = case.key) -> None:
                bar.update("cases", at, len(cases), f"{key}: {text}")

            found = measure_case(case, peers, dataclasses.replace(settings, report=note))
            measured.append(found)
            warn(_line(found))
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Results(date, description(), settings.threads, revision(), measured)


def _line(found: CaseResult) -> str:
    """Return a case in a line: medians, and the common first loss."""
    times = [
        f"{m.peer} left out ({m.failed})" if m.failed else f"{m.peer} {m.median_ms:.4g} ms"
        for m in found.peers
    ]
    losses = sorted(m.first_loss for m in found.peers if not m.failed)
    spread = f"first losses {losses[0]:.6f} to {losses[-1]:.6f}" if losses else ""
    return f"{found.key}: {', '.join(times)}; {spread}"


def _write_tables(results: Results, output: Path) -> None:
    report.write_document(results, output / "benchmark.md")
    try:
        from tests.bench import chart

        chart.draw(results, output / "benchmark.png")
    except ImportError as error:
        warn(f"no chart: {error}; pip install matplotlib")


@app.command()
def readme(
    file: Annotated[Path, typer.Option(metavar="FILE", help="Which.")] = ROOT / "README.md",
    output: OutputOption = RESULTS,
) -> None:
    """Put the table of the last run into the README, between its marks."""
    path = output / "benchmark.json"
    if not path.exists():
        warn(f"there is no {path}: run the benchmark before")
        raise typer.Exit(1)
    section = report.readme_section(read_results(path))
    text = file.read_text(encoding="utf-8")
    try:
        text = report.insert_section(text, section)
    except ValueError as error:
        warn(f"{file}: {error}")
        raise typer.Exit(1) from None
    file.write_text(text, encoding="utf-8")
    say(f"wrote the table into {file}")


@app.command("profile")
def profile_(  # noqa: PLR0917  one parameter per option
    workload: Annotated[str, typer.Argument(help=f"Of {', '.join(WORKLOADS)}.")],
    mode: Annotated[str, typer.Option(help="full or sparse.")] = "full",
    batch: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="NAME=N", help="Another size, as resolution=160."),
    ] = None,
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

    case = _case(workload, mode, batch, size)
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
    state, arena = memory.state_bytes / report.MIB, memory.arena_bytes / report.MIB
    rates = f"{peak.gflops:.1f} GFLOP/s FMA, triad {peak.triad_gbs:.1f} GB/s"
    planned = f"{state:.1f} MiB state + {arena:.1f} MiB arena"
    say(f"{threads} threads; peak {rates}; planned {planned}")
    if json_file is not None:
        profiling.write_json(lines, json_file)
        say(f"wrote {json_file}")


@app.command()
def times(
    only: Annotated[
        list[str] | None,
        typer.Option("--net", metavar="NAME", help="Only this net; any number."),
    ] = None,
    stage: Annotated[
        str, typer.Option(help="build, measure or show; each needs those before it.")
    ] = "all",
    rates: Annotated[
        bool, typer.Option("--rates", help="Fit pockc.search.rates to other nets instead.")
    ] = False,
    threads: ThreadsOption = 2,
) -> None:
    """Compare predicted step times with measured ones, over schemes of some nets.

    Example: python -m tests.bench times --stage build; quiet-run python -m tests.bench times
    """
    from tests.bench import step_times

    known = step_times.RATE_NETS if rates else step_times.NETS
    nets = [step_times.Net(n, threads) for n in step_times.chosen(only, known)]
    schemes = [s for net in nets for s in net.schemes]
    with progress_bar() as bar:
        for done, (net, scheme) in enumerate((n, s) for n in nets for s in n.schemes):
            bar.update("built", done, len(schemes), str(scheme.folder.name))
            net.build(scheme)
        if stage in ("all", "measure"):
            turns = len(schemes) * step_times.ROUNDS
            for done, scheme in enumerate(step_times.measure(schemes, threads)):
                bar.update("measured", done + 1, turns, scheme.folder.name)
    if stage in ("all", "show") and rates:
        for kind, found in step_times.usual_rates(nets).items():
            say(f'    "{kind}": {found},')
    elif stage in ("all", "show"):
        from tests.bench.machine import description

        grid = step_times.grid(nets)
        _show(_table_of(grid))
        path = RESULTS / "step-times.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(report.markdown(grid), encoding="utf-8")
        say(f"{description()}, {threads} threads; wrote {path}")


def _cases(sets: Sequence[str], only: Sequence[str] | None) -> list[Case]:
    for name in sets:
        if name not in SETS:
            raise typer.BadParameter(f"choose from: {', '.join(SETS)}", param_hint="--set")
    cases = {c.key: c for name in sets for c in SETS[name]}
    chosen = [c for k, c in cases.items() if not only or any(fnmatch(k, g) for g in only)]
    if not chosen:
        choices = f"no case matches; choose from: {', '.join(cases)}"
        raise typer.BadParameter(choices, param_hint="--only")
    return chosen


def _names(text: str) -> list[str]:
    names = [n.strip() for n in text.split(",")]
    if unknown := [n for n in names if n not in PEERS]:
        what = f"no peer {', '.join(unknown)}; choose from: {', '.join(PEERS)}"
        raise typer.BadParameter(what, param_hint="--peers")
    return names


def _case(workload: str, mode: str, batch: int | None, sizes: Sequence[str] | None) -> Case:
    if workload not in WORKLOADS:
        raise typer.BadParameter(f"choose from: {', '.join(WORKLOADS)}", param_hint="WORKLOAD")
    if mode not in MODES:
        raise typer.BadParameter(f"choose from: {', '.join(MODES)}", param_hint="--mode")
    changes = {} if batch is None else {"batch": batch}
    known = WORKLOADS[workload].sizes
    for name, number in (_pair(text, "--size") for text in sizes or ()):
        if name not in known or not number.isdecimal():
            choices = f"found {name}={number}; choose from: {', '.join(known)}"
            raise typer.BadParameter(choices, param_hint="--size")
        changes[name] = int(number)
    return Case(workload, mode, changes)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark:
        raise typer.BadParameter(f"expected NAME=VALUE, found {text!r}", param_hint=option)
    return name, value


def _table_of(grid: report.Grid) -> Table:
    figures = tuple(range(grid.names, len(grid.columns)))
    made = table(grid.title, *grid.columns, right=figures)
    for row in grid.rows:
        made.add_row(*row)
    return made


def _show(made: Table) -> None:
    """Write a table; into a file as wide as it needs to be."""
    terminal = Console().is_terminal
    Console(width=None if terminal else 400, highlight=False).print(made)


if __name__ == "__main__":
    app()
