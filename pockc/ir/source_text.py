"""The user's lines in graph text: the comment behind a node, written and read back.

    %h3 : f32[4,64] = erf(%h2)  # [layers.0] model.py:27 in Mlp.forward: return F.gelu(x)

The parser skips comments; who wants to know where nodes come from reads them here.
"""

from __future__ import annotations

import re

from pockc.ir.graph import Source

_NODE = re.compile(r"^  %([A-Za-z0-9_.]+) :")
_COMMENT = re.compile(
    r"  # (?:\[(?P<module>[^\]\s]*)\] )?(?P<file>[^\s:]+):(?P<line>\d+)"
    r"(?: in (?P<function>[^\s:]+))?(?:: (?P<text>.*))?$"
)


def source_comment(source: Source) -> str:
    """Return the comment of a node that has a source."""
    module = f"[{source.module}] " if source.module else ""
    return f"  # {module}{source}"


def read_sources(text: str) -> dict[str, Source]:
    """Return the source of every node in a graph's text that tells it."""
    found: dict[str, Source] = {}
    name = ""
    for line in text.splitlines():
        if node := _NODE.match(line):
            name = node[1]
        # A fused node ends lines later, and its body tells no sources.
        if name and (told := _COMMENT.search(line)):
            found[name] = Source(
                told["file"],
                int(told["line"]),
                told["function"] or "",
                told["text"] or "",
                told["module"] or "",
            )
    return found
