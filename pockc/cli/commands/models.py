"""The commands that make artifacts: `compile`, `tune`, `targets`, and `opt` for graph text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pockc.cli.console import say, show
from pockc.cli.options import ConfigOption, PresetOption, ThreadsOption
from pockc.cli.places import check_file_target


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
    sparse_update: ConfigOption = None,
    preset: PresetOption = None,
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


def _present(**options: object) -> dict[str, object]:
    return {k: v for k, v in options.items() if v is not None}


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
