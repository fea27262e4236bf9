"""Finds the repeated blocks and the head of a model from its structure.

A block is one of the modules that stand in a numbered list, are of one class, and hold at least
two matrices or filters. The class with the most such modules is the model's block class; of
equally frequent ones the outermost. Nothing depends on what a family of models calls its parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pockc.scheme.facts import ModuleFacts, Parameters, ParamFacts


@dataclass(frozen=True)
class Structure:
    """The parts of a model that presets speak of.

    Attributes:
        blocks: Parameters of each block, in the order in which the forward pass meets them.
        block_names: The module of each block.
        head: Parameters of the fully connected layers after the last block; without blocks,
            those of the last module that has a matrix.
    """

    blocks: tuple[tuple[str, ...], ...]
    block_names: tuple[str, ...]
    head: tuple[str, ...]


def structure_of(parameters: Parameters, modules: Sequence[ModuleFacts]) -> Structure:
    """Return blocks and head of a model; there may be none of either."""
    below = _parameters_below(parameters, modules)
    names = _block_names(parameters, modules, below)
    names.sort(key=lambda n: min(parameters[p].first_use for p in below[n]))
    blocks = tuple(tuple(below[n]) for n in names)
    return Structure(blocks, tuple(names), _head(parameters, blocks))


def is_below(name: str, module: str) -> bool:
    """Return whether a parameter or module lies in a module, or is it."""
    return not module or name == module or name.startswith(module + ".")


def matrices(parameters: Parameters, names: Iterable[str]) -> list[ParamFacts]:
    """Return the weights of two and more dimensions among `names`, in order of first use."""
    found = [parameters[n] for n in names if len(parameters[n].type.shape) >= 2]
    return sorted((p for p in found if p.kind == "weight"), key=lambda p: p.first_use)


def _parameters_below(
    parameters: Parameters, modules: Sequence[ModuleFacts]
) -> dict[str, list[str]]:
    """Return the parameters in each module, for modules that have any."""
    below: dict[str, list[str]] = {}
    for module in modules:
        inside = [p.name for p in parameters.values() if is_below(p.name, module.name)]
        if inside:
            below[module.name] = inside
    return below


def _block_names(
    parameters: Parameters, modules: Sequence[ModuleFacts], below: dict[str, list[str]]
) -> list[str]:
    """Return the modules of the block class, falling back to smaller and smaller modules."""
    numbered = [m for m in modules if m.name in below and _is_numbered(m.name)]
    size = {m.name: len(matrices(parameters, below[m.name])) for m in numbered}
    for least in (2, 1):
        classes: dict[str, list[str]] = defaultdict(list)
        for module in numbered:
            if size[module.name] >= least:
                classes[module.type].append(module.name)
        outermost = {t: _outermost(names) for t, names in classes.items()}
        repeated = [names for names in outermost.values() if len(names) >= 2]
        if repeated:
            return max(repeated, key=lambda names: (len(names), -_depth(names)))
    return []


def _is_numbered(name: str) -> bool:
    return name.rpartition(".")[2].isdigit()


def _outermost(names: Sequence[str]) -> list[str]:
    return [n for n in names if not any(n != m and is_below(n, m) for m in names)]


def _depth(names: Sequence[str]) -> int:
    return min(n.count(".") for n in names)


def _head(parameters: Parameters, blocks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the parameters of the fully connected layers behind the last block."""
    in_blocks = {p for block in blocks for p in block}
    last = max((parameters[p].first_use for p in in_blocks), default=-1)
    behind = [p for p in matrices(parameters, parameters) if p.first_use > last]
    owners = {p.module for p in behind if len(p.type.shape) == 2}
    if not blocks:
        owners = {p.module for p in behind[-1:]}
    return tuple(n for n, p in parameters.items() if p.module in owners and n not in in_blocks)
