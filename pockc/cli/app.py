"""The command line: all commands by what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from pockc.cli import profiling, viewing
from pockc.cli.commands import artifacts, device, models, schemes
from pockc.cli.console import say, show_error
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

_PANELS = {
    "From a model to an artifact": (
        models.compile_,
        schemes.plan,
        schemes.search,
        models.tune,
        models.targets,
    ),
    "Fine-tuning": (
        artifacts.train,
        artifacts.eval_,
        artifacts.predict,
        artifacts.export,
    ),
    "Another machine; train, eval, bench and profile have --on": (
        device.deploy,
        device.fetch,
        device.runtime,
    ),
    "What it takes, and how it looks": (
        artifacts.inspect,
        device.bench,
        profiling.profile,
        viewing.report,
        viewing.show,
        models.opt,
    ),
}

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        _name = _command.__name__.removesuffix("_")
        app.command(_name, rich_help_panel=_panel)(_command)


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
