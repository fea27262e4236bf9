"""The schemes that a search chooses from: one choice for each block of the model.

A scheme is a tuple of genes, one a block, each the number of a choice in the block's menu.
The head is always trained. A choice trains the block's biases or not, and some of its
matrices at one share of their output channels (Lin et al., On-Device Training Under 256KB
Memory, NeurIPS 2022, section 3.2, search the same two things: biases, and weights at
channel ratios).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pockc.errors import Problem, UserError
from pockc.scheme import Config
from pockc.scheme.blocks import matrices, structure_of
from pockc.scheme.config import Channels, Rule, rule_of
from pockc.scheme.facts import ModuleFacts, Parameters

RATIOS = (0.25, 0.5, 1.0)
"""Shares of the output channels of a matrix that can be trained."""
Genes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is trained of a block: biases, and matrices at a share of their channels."""

    bias: bool = False
    weights: tuple[str, ...] = ()
    ratio: float = 1.0

    @property
    def trains(self) -> bool:
        """Whether it trains anything."""
        return self.bias or bool(self.weights)


@dataclass(frozen=True)
class Unit:
    """A block of the model.

    Attributes:
        name: Its module.
        biases: Its biases.
        weights: Its matrices and filters, in the order of their use.
        menu: What can be chosen; the first one trains nothing.
    """

    name: str
    biases: tuple[str, ...]
    weights: tuple[str, ...]
    menu: tuple[Choice, ...]


@dataclass(frozen=True)
class Space:
    """All schemes of a model.

    Attributes:
        units: The blocks, in the order of the forward pass.
        head: What is always trained.
        head_lr_scale: The learning rate of the head is multiplied by it.
    """

    units: tuple[Unit, ...]
    head: tuple[str, ...]
    head_lr_scale: float = 1.0

    def choices(self, genes: Genes) -> tuple[Choice, ...]:
        """Return what is trained of each block."""
        return tuple(u.menu[g] for u, g in zip(self.units, genes, strict=True))

    def first_trained(self, genes: Genes) -> int:
        """Return the first block that is trained, the number of blocks if none is."""
        trains = [c.trains for c in self.choices(genes)]
        return trains.index(True) if True in trains else len(self.units)

    def rules(self, genes: Genes) -> tuple[Rule, ...]:
        """Return a scheme as rules of a configuration."""
        found: list[Rule] = []
        for unit, choice in zip(self.units, self.choices(genes), strict=True):
            if choice.bias and unit.biases:
                found.append(rule_of(f"{unit.name}.*", "bias"))
            part = None if choice.ratio == 1 else Channels(fraction=choice.ratio)
            found += [rule_of(w, "weight", part) for w in choice.weights]
        scale = self.head_lr_scale
        found += [rule_of(p, "all", lr_scale=scale) for p in self.head]
        return tuple(found)

    def describe(self, genes: Genes) -> str:
        """Return a scheme on one line, as `layer.5 bias value output x 0.5`."""
        parts = []
        for unit, choice in zip(self.units, self.choices(genes), strict=True):
            names = [
                w.removeprefix(unit.name + ".").removesuffix(".weight") for w in choice.weights
            ]
            if choice.trains:
                share = "" if choice.ratio == 1 or not names else f" x {choice.ratio:g}"
                words = [unit.name, *(["bias"] if choice.bias else []), *names]
                parts.append(" ".join(words) + share)
        return "; ".join([*parts, "head"])

    def config(self, base: Config, genes: Genes) -> Config:
        """Return a configuration that trains a scheme, and is `base` in everything else."""
        return base.model_copy(update={"preset": None, "update": self.rules(genes)})


def refined(space: Space, gains: Mapping[str, float], sizes: Mapping[str, int]) -> Space:
    """Return a space whose blocks can train several of their weights, the best ones first.

    All sets of a block's weights are too many. Those worth looking at are, to first order, the
    weights in the order of gain per element: the first two, the first three, and so on.

    Args:
        space: Schemes with one or all of the weights of each block.
        gains: What each weight brings.
        sizes: Its elements.
    """
    units = []
    for unit in space.units:
        ratios = sorted({c.ratio for c in unit.menu if c.weights})
        order = sorted(unit.weights, key=lambda w: gains[w] / sizes[w], reverse=True)
        sets = [tuple(w for w in unit.weights if w in order[:n]) for n in range(2, len(order))]
        added = [Choice(bool(unit.biases), s, r) for r in ratios for s in sets]
        menu = (*unit.menu, *(c for c in added if c not in unit.menu))
        units.append(replace(unit, menu=menu))
    return replace(space, units=tuple(units))


def make_space(
    parameters: Parameters,
    modules: Sequence[ModuleFacts],
    *,
    ratios: Sequence[float] = RATIOS,
    head_lr_scale: float = 1.0,
) -> Space:
    """Return the schemes of a model.

    Args:
        parameters: What can be trained.
        modules: The model's modules.
        ratios: Shares of the output channels of a matrix.
        head_lr_scale: The learning rate of the head is multiplied by it.

    Raises:
        UserError: [search-space] The model has no repeated blocks.
    """
    structure = structure_of(parameters, modules)
    if not structure.blocks:
        what = "a search needs repeated blocks, and the model has none"
        fix = "write rules under `update`, and ask `pockc plan` what they cost"
        raise UserError(Problem("search-space", what, fix=fix))
    units = []
    for name, members in zip(structure.block_names, structure.blocks, strict=True):
        biases = tuple(p for p in members if parameters[p].kind == "bias")
        weights = tuple(p.name for p in matrices(parameters, members))
        units.append(Unit(name, biases, weights, _menu(biases, weights, ratios)))
    return Space(tuple(units), structure.head, head_lr_scale)


def _menu(
    biases: Sequence[str], weights: Sequence[str], ratios: Sequence[float]
) -> tuple[Choice, ...]:
    sets: list[tuple[str, ...]] = [(w,) for w in weights]
    if len(weights) > 1:
        sets.append(tuple(weights))
    bias = bool(biases)
    menu = [Choice(), *([Choice(bias=True)] if bias else [])]
    menu += [Choice(bias, s, r) for r in sorted(ratios) for s in sets]
    return tuple(menu)
