"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pockc.cli import device, inspecting, profiling, viewing
from pockc.cli.console import say, show, show_error
from pockc.cli.options import (
    ArtifactArg,
    DataOption,
    OnOption,
    PortOption,
    SshOption,
    ThreadsOption,
)
from pockc.cli.places import check_file_target
from pockc.errors import PockcError

app = typer.Typer(
    name="pockc",
    help="Compile the training step of a PyTorch model, and fine-tune it on a small device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    *(device.deploy, device.fetch, device.bench, device.runtime),
    *(viewing.show, viewing.report, profiling.profile),
):
    app.command()(command)


ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider", metavar="NAME", help="Of ONNX Runtime, as cuda; for ONNX artifacts."
    ),
]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pockc")
    except PockcError as error:
        show_error(error)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        from pockc import __version__

        say(f"pockc {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Compile the training step of a PyTorch model, and fine-tune it on a small device."""


@app.command("compile")
def compile_(  # noqa: PLR0913, PLR0917  one parameter per option
    model: Annotated[
        str,
        typer.Argument(
            help="model.py, model.py:factory, package.module:factory, .pt2 or .onnx"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="MODEL.pock", help="Default: the model's name."),
    ] = None,
    sparse_update: Annotated[
        Path | None,
        typer.Option("--sparse-update", metavar="CONFIG.yaml", help="What is trained."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="full, head, bias, last:N, pockengine, bert, ...; rules refine it."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="sgd, adam, adamw and others."),
    ] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Default learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0)] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="cross_entropy, mse and others; default: what model.py says."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Rows of a step. Default: those of the example inputs."),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Split each batch into so many micro-batches."),
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(min=0, help="Largest global norm of the gradients."),
    ] = None,
    batch_norm: Annotated[
        str | None,
        typer.Option(help="Running statistics: frozen or update."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="The machine it is for: a name of `targets`, or TVM's 'llvm -m...'."),
    ] = "host",
    backend: Annotated[str, typer.Option(help="tvm, onnx or ort-training.")] = "tvm",
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators, for ONNX backends.")
    ] = None,
    threads: ThreadsOption = None,
    static: Annotated[
        bool,
        typer.Option(
            "--static", help="Make pock-run one static program, for boards without glibc."
        ),
    ] = False,
    dump_passes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the graph after each pass there."),
    ] = None,
    tuning_db: Annotated[
        Path | None,
        typer.Option("--tuning-db", metavar="TUNING.json", help="What `pockc tune` measured."),
    ] = None,
) -> None:
    """Compile a model into an artifact.

    Examples:
        pockc compile model.py --sparse-update config.yaml -o model.pock

        pockc compile model.py:factory --preset last:2 --optimizer sgd --lr 0.01 --target rpi4
    """
    from pockc.cli.compiling import CompileRequest, run_compile

    overrides: dict[str, Any] = {
        "optimizer": _present(name=optimizer, lr=lr, weight_decay=weight_decay) or None,
        "loss": loss,
        "preset": preset,
        "accumulate": accumulate,
        "clip_norm": clip_norm,
        "batch_norm": batch_norm,
    }
    run_compile(
        CompileRequest(
            model,
            output,
            sparse_update,
            overrides,
            batch,
            target,
            backend,
            opset,
            threads,
            static,
            dump_passes,
            tuning_db,
        )
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
ConfigOption = Annotated[
    Path | None,
    typer.Option("--sparse-update", metavar="CONFIG.yaml", help="What is trained."),
]
ModelArg = Annotated[
    str,
    typer.Argument(help="model.py, model.py:factory, package.module:factory or a saved .pt2"),
]


@app.command()
def plan(  # noqa: PLR0913, PLR0917  one parameter per option
    model: ModelArg,
    sparse_update: ConfigOption = None,
    preset: Annotated[
        str | None,
        typer.Option(help="full, head, bias, last:N, pockengine, bert, ...; rules refine it."),
    ] = None,
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
    target: Annotated[str, typer.Option(help="The machine it is for; see `targets`.")] = "host",
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


@app.command()
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
    target: Annotated[str, typer.Option(help="The machine it is for; see `targets`.")] = "host",
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


def _present(**options: object) -> dict[str, object]:
    return {k: v for k, v in options.items() if v is not None}


@app.command()
def train(  # noqa: PLR0913, PLR0917  one parameter per option
    artifact: ArtifactArg,
    data: DataOption,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", metavar="FILE.npz", help="Evaluate on it after each epoch."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    lr: Annotated[
        float | None,
        typer.Option(min=0, help="Peak learning rate. Default: the one compiled in."),
    ] = None,
    schedule: Annotated[str, typer.Option(help="constant, linear or cosine.")] = "constant",
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the rate rises.")] = 0,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the shuffling and of dropout. Default: 0 and the artifact's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--save", metavar="TUNED.pock", help="Default: MODEL.pock itself."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.safetensors",
            help="Write DIR/checkpoint.safetensors after each epoch.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the checkpoint, or behind the artifact's own steps."
        ),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write event files for TensorBoard there."),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw loss and results there at the end."),
    ] = None,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    on: OnOption = None,
    port: PortOption = None,
    ssh_option: SshOption = None,
) -> None:
    """Fine-tune an artifact; its weights are replaced by the trained ones.

    With --on it is sent to another machine and trained there; weights, checkpoint and log
    come home.

    Examples:
        pockc train model.pock --data train.npz --eval test.npz --epochs 3 --lr 3e-4

        pockc train model.pock --data train.npz --on pi@raspberrypi.local

        pockc train model.pock --data train.npz --tensorboard runs/1 --curves curves.png
    """
    from pockc.cli.curves import CurveFiles
    from pockc.cli.training import TrainRequest, checkpoint_file, run_training
    from pockc.runtime import TrainOptions

    options = TrainOptions(
        epochs=epochs,
        lr=lr,
        schedule=schedule,
        warmup_steps=warmup,
        seed=seed or 0,
        checkpoint=None if checkpoint is None else checkpoint_file(checkpoint),
        resume=resume,
    )
    request = TrainRequest(
        artifact,
        data,
        evaluation,
        output or artifact,
        threads,
        provider,
        seed,
        options,
        CurveFiles(tensorboard, curves),
    )
    if on is None:
        run_training(request)
        return
    from pockc.cli.deploying import There
    from pockc.cli.remote_training import train_there

    raise typer.Exit(train_there(request, There.of(on, port, ssh_option, provider)))


@app.command("eval")
def eval_(  # noqa: PLR0913, PLR0917  one parameter per option
    artifact: ArtifactArg,
    data: DataOption,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
    on: OnOption = None,
    port: PortOption = None,
    ssh_option: SshOption = None,
) -> None:
    """Compute loss and accuracy on a data set, here or on another machine.

    Examples:
        pockc eval model.pock --data test.npz

        pockc eval model.pock --data test.npz --on pi@raspberrypi.local
    """
    if on is not None:
        from pockc.cli.deploying import There
        from pockc.cli.running import run_there

        words = [] if threads is None else ["--threads", str(threads)]
        run_there(artifact, There.of(on, port, ssh_option, provider), "eval", words, data)
        return
    from pockc.cli.data import read_data
    from pockc.cli.text import figures
    from pockc.runtime import load

    with load(artifact, threads, providers=provider) as opened:
        arrays = read_data(data, opened.entry_spec("evaluate").inputs, "eval")
        say(figures(opened.evaluate(arrays)))


@app.command()
def predict(
    artifact: ArtifactArg,
    data: DataOption,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.npz", help="Write all outputs there."),
    ] = None,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Run the model; print the likeliest class of each row, or write what it returns.

    Examples:
        pockc predict model.pock --data x.npz

        pockc predict model.pock --data x.npz -o out.npz
    """
    from pockc.cli.predicting import run_predict

    run_predict(artifact, data, output, threads, provider)


@app.command()
def inspect(
    artifact: ArtifactArg,
    graph: Annotated[bool, typer.Option("--graph", help="Print the graphs.")] = False,
    kernels: Annotated[bool, typer.Option("--kernels", help="List the kernels.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Cut no table.")] = False,
) -> None:
    """Show what is trained and what memory is used for; it need not be for this machine.

    Example:
        pockc inspect model.pock --kernels
    """
    from pockc.runtime.opening import read_graph_text, read_manifest

    manifest = read_manifest(artifact)
    if graph:
        sys.stdout.write(read_graph_text(artifact))
        return
    shown = None if everything else inspecting.SHOWN
    for line in inspecting.summary(manifest):
        say(line)
    tables = [
        inspecting.savings_table(manifest),
        inspecting.scheme_table(manifest, shown),
        inspecting.memory_table(manifest),
        inspecting.kernel_table(manifest, shown) if kernels or everything else None,
    ]
    for made in tables:
        if made is not None:
            say()
            show(made)
    say()
    for line in inspecting.peak_lines(manifest):
        say(line)


@app.command()
def export(
    artifact: ArtifactArg,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", help="Ends in .safetensors, .npz, .pt or .onnx."),
    ],
) -> None:
    """Write the weights so that the original module loads them with strict=True, or a model.

    Examples:
        pockc export model.pock --to state_dict.safetensors

        pockc export model.pock --to tuned.onnx
    """
    from pockc.cli.exporting import export as write

    say(f"wrote {write(artifact, to)}")


@app.command()
def opt(
    graph: Annotated[Path, typer.Argument(metavar="IN.pock", help="Graph text.")],
    passes: Annotated[
        str, typer.Option("--passes", help="As 'prune_backward{trainable=fc.weight},layout'.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.pock", help="Default: standard output."),
    ] = None,
    dump_passes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the graph after each pass there."),
    ] = None,
) -> None:
    """Run passes on graph text.

    Example:
        pockc opt --passes 'canonicalize,eliminate_dead' in.pock -o out.pock
    """
    from pockc.cli.optimizing import run_passes_on

    if output is not None:
        check_file_target(output)
    text = run_passes_on(graph, passes, dump_passes)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@app.command()
def tune(  # noqa: PLR0913, PLR0917  one parameter per option
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|MODEL.pock", help="An artifact, or what `compile` takes."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="TUNING.json", help="Goes on with what is there."
        ),
    ] = Path("tuning.json"),
    sparse_update: Annotated[
        Path | None,
        typer.Option("--sparse-update", metavar="CONFIG.yaml", help="What a MODEL trains."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows of a step, for a MODEL.")
    ] = None,
    budget: Annotated[str, typer.Option(help="When to stop, as 90s, 10m or 2h.")] = "60s",
    target: Annotated[
        str, typer.Option(help="The machine; it must be this one: candidates are run.")
    ] = "host",
    threads: ThreadsOption = None,
) -> None:
    """Measure on this machine which schedule of each kernel is fastest.

    The most expensive kernels come first. Interrupt it at any time: what was measured is kept,
    and the next run goes on with the others.

    Examples:
        pockc tune model.pock -o tuning.json --budget 5m

        pockc compile model.py --tuning-db tuning.json -o model.pock
    """
    from pockc.cli.tuning import TuneRequest, run_tuning

    run_tuning(TuneRequest(model, output, sparse_update, batch, budget, target, threads))


@app.command()
def targets() -> None:
    """List the machines that can be compiled for."""
    from pockc.backends.tvm.targets import NAMES, get
    from pockc.cli.console import table
    from pockc.cli.text import size

    made = table("Targets", "name", "processor", "vectors", "L1", "L2", "cores", "machines")
    made.add_row("host", "", "", "", "", "", "this machine")
    for name in NAMES:
        if name == "host":  # asking what it is would load TVM
            continue
        known = get(name)
        caches = size(known.l1_bytes), size(known.l2_bytes)
        cores = str(known.cores)
        made.add_row(name, known.mcpu, known.vectors, *caches, cores, known.boards)
    show(made)
    say()
    say("others   --target 'llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a73'")
