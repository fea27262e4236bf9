"""Runs passes on graph text."""

from __future__ import annotations

from pathlib import Path

from pockc.errors import Problem, UserError
from pockc.ir.parser import parse_graph
from pockc.ir.printer import print_graph
from pockc.ir.verify import verify
from pockc.passes.base import parse_passes, run_passes


def run_passes_on(path: Path, passes: str, dump_to: Path | None) -> str:
    """Return the text of a graph after passes.

    Raises:
        UserError: [graph-file] The file cannot be read; or the text or the passes are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read {path}: {error}"
        fix = "give a file of graph text, as --dump-passes writes them"
        raise UserError(Problem("graph-file", what, fix=fix)) from None
    steps = parse_passes(passes)
    graph = parse_graph(text)
    verify(graph)
    return print_graph(run_passes(graph, steps, dump_to))
