"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ArtifactArg = Annotated[Path, typer.Argument(metavar="MODEL.pock", help="A compiled model.")]
DataOption = Annotated[
    Path,
    typer.Option("--data", metavar="FILE.npz", help="Arrays by input name, and target."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--sparse-update", metavar="CONFIG.yaml", help="What is trained."),
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="full, head, bias, last:N, pockengine, bert, ...; rules refine it."),
]
TargetOption = Annotated[str, typer.Option(help="The machine it is for; see `targets`.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads that run kernels. Default: all processors."),
]
OnOption = Annotated[
    str | None,
    typer.Option("--on", metavar="user@host[:dir]", help="Run on another machine, over SSH."),
]
PortOption = Annotated[
    int | None, typer.Option("--port", "-p", min=1, max=65535, help="Of SSH there.")
]
SshOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh-option",
        metavar="TEXT",
        help="For ssh, any number: '-i key', or as in its configuration, 'User=pi'.",
    ),
]
