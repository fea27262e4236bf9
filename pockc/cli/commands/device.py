"""The commands for devices and their options: `deploy`, `fetch`, `bench`, `runtime`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pockc.cli.console import say
from pockc.cli.options import (
    ArtifactArg,
    OnOption,
    PortOption,
    SshOption,
    TargetOption,
    ThreadsOption,
)

PlaceArg = Annotated[
    str,
    typer.Argument(metavar="user@host[:dir]", help="As for scp; without dir it is the home."),
]


def deploy(
    artifact: ArtifactArg,
    place: PlaceArg,
    port: PortOption = None,
    ssh_option: SshOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights that were trained there.")
    ] = False,
) -> None:
    """Copy an artifact to another machine over SSH, and open it there.

    What is there already is not sent again. The machine needs neither Python nor a compiler.

    Examples:
        pockc deploy model.pock pi@raspberrypi.local

        pockc deploy model.pock pi@10.0.0.7:models -p 2222 --ssh-option '-i ~/.ssh/board'
    """
    from pockc.cli.deploying import There, run_deploy

    run_deploy(artifact, There.of(place, port, ssh_option), overwrite=overwrite)


def fetch(
    artifact: ArtifactArg,
    place: PlaceArg,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--save", metavar="TUNED.pock", help="Default: MODEL.pock itself."),
    ] = None,
    port: PortOption = None,
    ssh_option: SshOption = None,
) -> None:
    """Bring home an artifact that was trained on another machine.

    Example:
        pockc fetch model.pock pi@raspberrypi.local
    """
    from pockc.cli.deploying import There, run_fetch

    run_fetch(artifact, There.of(place, port, ssh_option), output or artifact)


def bench(  # noqa: PLR0913, PLR0917  one parameter per option
    artifact: ArtifactArg,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time.")] = 20,
    threads: ThreadsOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
    on: OnOption = None,
    port: PortOption = None,
    ssh_option: SshOption = None,
) -> None:
    """Time training steps on random data, here or on another machine; nothing is changed.

    Examples:
        pockc bench model.pock

        pockc bench model.pock --on pi@raspberrypi.local
    """
    from pockc.cli.deploying import There
    from pockc.cli.running import run_here, run_there

    words = ["--steps", str(steps), *(["--json"] if json else [])]
    words += [] if threads is None else ["--threads", str(threads)]
    if on is None:
        run_here(artifact, "bench", *words)
    else:
        run_there(artifact, There.of(on, port, ssh_option), "bench", words)


def runtime(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A folder.")],
    target: TargetOption = "host",
) -> None:
    """Write libpock, its headers and pock-run for a target, for programs of your own.

    An artifact has them already; this is for a program in C or C++ that links with libpock.

    Example:
        pockc runtime --target rpi4 -o device
    """
    from pockc.backends.native import NativeTarget, build_device, copy_headers
    from pockc.backends.tvm import targets
    from pockc.cli.text import size

    machine = NativeTarget.of_llvm(targets.get(target).triple)
    for file in (*build_device(output, machine), *copy_headers(output)):
        say(f"wrote    {file} ({size(file.stat().st_size)})")
