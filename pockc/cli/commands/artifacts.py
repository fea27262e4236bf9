"""The commands that use artifacts: `train`, `eval`, `predict`, `inspect`, `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pockc.cli import inspecting
from pockc.cli.console import say, show
from pockc.cli.options import (
    ArtifactArg,
    DataOption,
    OnOption,
    PortOption,
    SshOption,
    ThreadsOption,
)

ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider", metavar="NAME", help="Of ONNX Runtime, as cuda; for ONNX artifacts."
    ),
]


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
