"""The commands and their options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pockc.cli import inspecting
from pockc.cli.console import say, show, show_error
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

ArtifactArg = Annotated[Path, typer.Argument(metavar="MODEL.pock", help="A compiled model.")]
DataOption = Annotated[
    Path,
    typer.Option("--data", metavar="FILE.npz", help="Arrays by input name, and target."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads that run kernels. Default: all processors."),
]


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
        typer.Option(help="full, head, bias, last:N or pockengine; rules refine it."),
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
    target: Annotated[str, typer.Option(help="The machine it is for; see `targets`.")] = "host",
    backend: Annotated[str, typer.Option(help="tvm, onnx or ort-training.")] = "tvm",
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators, for ONNX backends.")
    ] = None,
    threads: ThreadsOption = None,
    dump_passes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the graph after each pass there."),
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
            dump_passes,
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
        typer.Option(metavar="FILE.safetensors", help="Write it after each epoch."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip the steps that the artifact has taken.")
    ] = False,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Fine-tune an artifact; its weights are replaced by the trained ones.

    Example:
        pockc train model.pock --data train.npz --eval test.npz --epochs 3 --lr 3e-4
    """
    from pockc.cli.training import TrainRequest, run_training
    from pockc.runtime import TrainOptions

    options = TrainOptions(
        epochs=epochs,
        lr=lr,
        schedule=schedule,
        warmup_steps=warmup,
        seed=seed or 0,
        checkpoint=checkpoint,
        resume=resume,
    )
    run_training(
        TrainRequest(
            artifact, data, evaluation, output or artifact, threads, provider, seed, options
        )
    )


@app.command("eval")
def eval_(
    artifact: ArtifactArg,
    data: DataOption,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Compute loss and accuracy on a data set.

    Example:
        pockc eval model.pock --data test.npz
    """
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
    from pockc.runtime.manifest import GRAPH_FILE
    from pockc.runtime.opening import read_manifest

    manifest = read_manifest(artifact)
    if graph:
        sys.stdout.write((artifact / GRAPH_FILE).read_text(encoding="utf-8"))
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
def targets() -> None:
    """List the machines that can be compiled for."""
    from pockc.backends.tvm.targets import NAMES, get
    from pockc.cli.console import table

    made = table("Targets", "name", "triple", "processor", "cores", right=(3,))
    made.add_row("host", "this machine")
    for name in NAMES:
        if name == "host":  # asking what it is would load TVM
            continue
        known = get(name)
        made.add_row(name, known.triple, known.mcpu, str(known.cores))
    show(made)
