"""Texts of several graphs, as an artifact holds those of its entries."""

from __future__ import annotations

import re

import numpy as np

from pockc.ir.attrs import Literal
from pockc.ir.graph import Graph
from pockc.ir.parser import parse_graph


def graph_texts(text: str) -> dict[str, str]:
    """Return the text of each graph by its name, in order."""
    parts = re.split(r"(?m)^(?=graph )", text)
    return {part.split(maxsplit=2)[1]: part for part in parts if part.startswith("graph ")}


def parse_outline(text: str) -> Graph:
    """Return a graph without its large constants, which text names by their hash only.

    Raises:
        UserError: The text is no graph.
    """
    named = dict.fromkeys(re.findall(r'literal \S+ "(\w+)"', text), Literal(np.zeros(1)))
    return parse_graph(text, named)
