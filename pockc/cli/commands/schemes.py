"""The commands that choose what is trained: `plan` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pockc.cli.options import (
    ConfigOption,
    DataOption,
    PresetOption,
    TargetOption,
    ThreadsOption,
)

BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="64MiB",
        help="Of the process that trains: state, arena, runtime.",
    ),
]
LatencyOption = Annotated[
    str | None, typer.Option("--latency-budget", metavar="50ms", help="Of one training step.")
]
TimesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--kernel-times",
        metavar="FILE.json",
        help="Measured times: a profile (profile --json), as of a board; any number. "
        "Default: what this machine has measured.",
    ),
]
MeasureOption = Annotated[
    bool,
    typer.Option("--measure", help="Run the step here for kernels that were not measured."),
]
ModelArg = Annotated[
    str,
    typer.Argument(help="model.py, model.py:factory, package.module:factory or a saved .pt2"),
]


def plan(  # noqa: PLR0913, PLR0917  one parameter per option
    model: ModelArg,
    sparse_update: ConfigOption = None,
    preset: PresetOption = None,
    memory_budget: BudgetOption = None,
    latency_budget: LatencyOption = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="Meet the memory budget by computing blocks again and micro-batches."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FITTED.yaml", help="With --fit: write it there."
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Micro-batches.")] = None,
    kernel_times: TimesOption = None,
    measure: MeasureOption = False,
    target: TargetOption = "host",
    threads: ThreadsOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Say what a scheme takes in memory and time, without building anything.

    Examples:
        pockc plan model.py --sparse-update config.yaml --memory-budget 64MiB

        pockc plan model.py --preset full --memory-budget 64MiB --fit -o fitted.yaml

        pockc plan model.py --preset bias --target rpi4 --kernel-times pi.json
    """
    from pockc.cli.searching import Asked, run_plan

    overrides = {"preset": preset, "accumulate": accumulate}
    asked = Asked(
        model,
        sparse_update,
        overrides,
        batch,
        memory_budget,
        latency_budget,
        tuple(kernel_times or ()),
        target,
        threads,
        measure,
    )
    run_plan(asked, fit=fit, output=output, json=json)


def search(  # noqa: PLR0913, PLR0917  one parameter per option
    model: ModelArg,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="CONFIG.yaml", help="What is to be trained."),
    ] = Path("config.yaml"),
    memory_budget: BudgetOption = None,
    latency_budget: LatencyOption = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", metavar="FILE.npz", help="Default: a fifth of the data."),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="CONFIG.yaml", help="Optimizer, loss and the like."),
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune/--proxy-only", help="Measure contributions by fine-tunes."),
    ] = True,
    proxy: Annotated[str, typer.Option(help="fisher or gradient-weight.")] = "fisher",
    detail: Annotated[
        str,
        typer.Option(help="Fine-tune each block, each weight, or each weight at each ratio."),
    ] = "weight",
    score: Annotated[str, typer.Option(help="A gain is one of loss, or of accuracy.")] = "loss",
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Fine-tune so many weights, the proxy's best. Default: all."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each fine-tune.")] = 1,
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs of each fine-tune, whose mean is taken.")
    ] = 1,
    finalists: Annotated[
        int,
        typer.Option(min=1, help="Best schemes that are fine-tuned before one is chosen."),
    ] = 4,
    contributions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Results of fine-tunes, kept and resumed."),
    ] = None,
    head_lr_scale: Annotated[float, typer.Option(min=0, help="Of the head.")] = 1.0,
    generations: Annotated[int, typer.Option(min=1, help="Of the evolution.")] = 40,
    seed: int = 0,
    measure: Annotated[
        bool | None,
        typer.Option(
            help="Run steps here to learn times. Default: with --latency-budget, for the host."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Fine-tunes at once. Default: all processors.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    kernel_times: TimesOption = None,
    target: TargetOption = "host",
    threads: ThreadsOption = None,
) -> None:
    """Find what to train within a budget of memory and time.

    Example:
        pockc search model.py --data train.npz --memory-budget 64MiB -o config.yaml
    """
    from pockc.cli.finding import SearchRequest, run_search
    from pockc.cli.searching import Asked

    asked = Asked(
        model,
        base,
        {},
        batch,
        memory_budget,
        latency_budget,
        tuple(kernel_times or ()),
        target,
        threads,
        target == "host" and latency_budget is not None if measure is None else measure,
    )
    run_search(
        SearchRequest(
            asked,
            data,
            evaluation,
            output,
            contributions,
            proxy,
            fine_tune,
            detail,
            score,
            most,
            epochs,
            repeats,
            finalists,
            head_lr_scale,
            generations,
            seed,
            processes,
        )
    )
