"""What the blocks of a model are, and which of their weights papers speak of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pockc.scheme.blocks import matrices
from pockc.scheme.facts import Parameters, ParamFacts

Kind = Literal["inverted residual", "bottleneck", "residual", "encoder", "decoder"]
"""Convolution blocks with a depthwise filter, that begin with a 1x1 filter, others; transformer
blocks with biases behind the attention, without them."""


def kind_of(parameters: Parameters, blocks: Sequence[Sequence[str]]) -> Kind | None:
    """Return what the blocks of a model are, None if they hold no matrices."""
    weights = [matrices(parameters, b) for b in blocks]
    filters = [p for found in weights for p in found if len(p.type.shape) > 2]
    # ConvNeXt mixes depthwise filters with linear layers; what decides is the majority.
    linear = [p for found in weights for p in found if len(p.type.shape) == 2]
    if not filters and not linear:
        return None
    if len(filters) >= len(linear):
        if any(p.type.shape[1] == 1 for p in filters):
            return "inverted residual"
        firsts = [found[0] for found in weights if found]
        return "bottleneck" if all(_is_pointwise(p) for p in firsts) else "residual"
    # Some decoders have biases in the projections of the attention, but nowhere else.
    ends = {found[-1].module for found in weights if found}
    biased = any(p.kind == "bias" and p.module in ends for p in parameters.values())
    return "encoder" if biased else "decoder"


def _is_pointwise(weight: ParamFacts) -> bool:
    window = weight.type.shape[2:]
    return bool(window) and set(window) == {1}


def biases_of(parameters: Parameters, names: Iterable[str]) -> set[str]:
    """Return the biases among some parameters."""
    return {n for n in names if parameters[n].kind == "bias"}


def first_pointwise(weights: Sequence[ParamFacts]) -> set[str]:
    """Return the first 1x1 convolution of a block.

    A block that begins with a full filter has one in its shortcut at most: there the first
    filter is taken.
    """
    pointwise = [p for p in weights if _is_pointwise(p)]
    if weights and 1 not in weights[0].type.shape[1:]:
        pointwise = []
    return {p.name for p in (pointwise or weights)[:1]}


def attention_and_first_linear(weights: Sequence[ParamFacts]) -> set[str]:
    """Return all matrices up to and including the first one of the feed-forward part.

    The feed-forward part ends a block: its last matrix maps f features to d, and its first one
    is the first that maps d to f. What is used before it is attention.
    """
    if not weights:
        return set()
    last = weights[-1]
    mirrored = [p for p in weights[:-1] if _in_out(p) == _in_out(last)[::-1]]
    # A projection of the attention may have that shape too; what lies beside the last matrix
    # is surely of its part.
    beside = [p for p in mirrored if _parent(p) == _parent(last)]
    # Without a mirror image (gate and up in one matrix), it is the one before the last.
    first = next(iter(beside or mirrored), weights[-2:][0])
    return {p.name for p in weights if p.first_use <= first.first_use}


def _in_out(weight: ParamFacts) -> tuple[int, int]:
    rows, columns = weight.type.shape[:2]
    return (rows, columns) if weight.module_type == "Conv1D" else (columns, rows)


def _parent(weight: ParamFacts) -> str:
    return weight.module.rpartition(".")[0]
