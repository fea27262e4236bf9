"""The command line; the only place that prints.

`main` is the entry point of the `pockc` command. The exit status is 0, or 1 for an error in
what was given, or 2 for a wrong command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave Python with its exit status."""
    try:
        from pockc.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        what = f"[missing-package] the command line needs {error.name}\n"
        sys.stderr.write(what + "    fix  pip install 'pockc[compile]'\n")
        raise SystemExit(1) from None
    raise SystemExit(run(arguments))
