"""Sparse updates that papers have published, read from the files in `published_schemes`.

A file has a family of models and, by source, its schemes. A scheme is named after the file,
and after a colon by what sets it apart: `bert`, `mcunet:49kb`. It says either which
convolutions are trained, by number and with the share of their input channels, or of how many
of the last blocks biases and certain weights are trained. The head is trained in any case.
`checked` says whether the source itself was read.

`pockengine` stands for the scheme of Zhu et al. (PockEngine, MICRO 2023) that suits a model:
the one for its kind of block and for the nearest number of them. It is that very scheme if
the number is right. If not, it trains the same share of the blocks, rounded: our choice.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pockc.errors import Problem, UserError
from pockc.scheme.blocks import Structure, matrices
from pockc.scheme.config import Channels, Rule, rule_of
from pockc.scheme.facts import Parameters, ParamFacts
from pockc.scheme.kinds import (
    Kind,
    attention_and_first_linear,
    biases_of,
    first_pointwise,
    kind_of,
)
from pockc.scheme.yaml_text import read_yaml

FOLDER = "published_schemes"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Convolutions(_Data):
    """Certain convolutions of a net that is known as a whole.

    Attributes:
        convolutions: How many the stem and the blocks have.
        biases: Biases of so many of the last ones are trained.
        weights: Shares of the input channels that are trained, by number from 0.
    """

    convolutions: int
    biases: int
    weights: dict[int, float]


class LastBlocks(_Data):
    """Parts of the last blocks.

    Attributes:
        kind: What the blocks are.
        blocks: How many the model has, by one implementation or another.
        biases: Biases of so many of the last blocks are trained.
        weights: Weights of so many of the last blocks are trained.
        which: Which weights of a block.
    """

    kind: Kind
    blocks: Annotated[tuple[int, ...], Field(min_length=1)]
    biases: int
    weights: int
    which: Literal["first 1x1", "attention and first linear"]

    def of(self, blocks: int) -> LastBlocks:
        """Return the same share of another number of blocks, rounded, of one at least."""

        def share(part: int) -> int:
            return max(1, int(part * blocks / max(self.blocks) + 0.5))

        return self.model_copy(
            update={
                "blocks": (blocks,),
                "biases": share(self.biases),
                "weights": share(self.weights),
            }
        )


class _Source(_Data):
    source: str
    checked: bool
    schemes: dict[str, Annotated[Convolutions | LastBlocks, Field(union_mode="smart")]]


class _Family(_Data):
    family: str
    published: tuple[_Source, ...]


class Published(_Data):
    """A scheme with its source.

    Attributes:
        name: The preset's name.
        family: The models that it is for.
        source: Where it was published.
        checked: Whether the source itself was read for it.
        scheme: What is trained.
    """

    name: str
    family: str
    source: str
    checked: bool
    scheme: Convolutions | LastBlocks

    @property
    def origin(self) -> str:
        """What it is, where it is from and whether that was checked, for people."""
        doubt = "" if self.checked else " (from memory: not checked against its text)"
        return f"preset {self.name}, after {self.source}{doubt}"


@cache
def published() -> dict[str, Published]:
    """Return all published schemes by name."""
    found: dict[str, Published] = {}
    folder = resources.files("pockc.scheme") / FOLDER
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        data, _ = read_yaml(file.read_text(encoding="utf-8"), file.name)
        family = _Family.model_validate(data)
        stem = file.name.removesuffix(".yaml")
        for source in family.published:
            for variant, scheme in source.schemes.items():
                name = f"{stem}:{variant}" if variant else stem
                found[name] = Published(
                    name=name,
                    family=family.family,
                    source=source.source,
                    checked=source.checked,
                    scheme=scheme,
                )
    return found


def short_names() -> list[str]:
    """Return the names, the variants of a family as one: `mcunet:49kb|74kb`."""
    families: dict[str, list[str]] = {}
    for name in published():
        family, _, variant = name.partition(":")
        families.setdefault(family, []).append(variant)
    names = []
    for family, variants in families.items():
        names += [family] * ("" in variants)
        sized = "|".join(v for v in variants if v)
        names += [f"{family}:{sized}"] * bool(sized)
    return names


def carried_over(parameters: Parameters, structure: Structure) -> Published:
    """Return what `pockengine` stands for in a model.

    Blocks that begin with a full filter are treated as a ResNet-50's, which begin with a 1x1.

    Raises:
        UserError: [preset] The model has no repeated blocks.
    """
    kind, count = kind_of(parameters, structure.blocks), len(structure.blocks)
    kin = "bottleneck" if kind == "residual" else kind
    fitting = [
        (p, p.scheme)
        for p in published().values()
        if isinstance(p.scheme, LastBlocks) and p.scheme.kind == kin
    ]
    if kind is None or not fitting:
        what = "preset 'pockengine' needs repeated blocks, and the model has none"
        fix = "use head, bias or full, or write rules under `update`"
        raise UserError(Problem("preset", what, fix=fix))

    def distance(found: tuple[Published, LastBlocks]) -> int:
        return min(abs(n - count) for n in found[1].blocks)

    chosen, scheme = min(fitting, key=distance)
    name = f"pockengine: {chosen.name}"
    if count not in scheme.blocks or kind != scheme.kind:
        name += f", carried over to {count} blocks"
        scheme = scheme.of(count).model_copy(update={"kind": kind})
    return chosen.model_copy(update={"name": name, "scheme": scheme})


def published_rules(
    chosen: Published, parameters: Parameters, structure: Structure
) -> dict[str, Rule]:
    """Return the rule of each parameter that a published scheme trains.

    Raises:
        UserError: [preset] The model is not of the family.
    """
    if isinstance(chosen.scheme, Convolutions):
        found = _convolutions(chosen, chosen.scheme, parameters, structure)
    else:
        found = _last_blocks(chosen, chosen.scheme, parameters, structure)
    head = {p: rule_of(p, "all") for p in structure.head}
    return {p: (found | head)[p] for p in parameters if p in found or p in head}


def _convolutions(
    chosen: Published, scheme: Convolutions, parameters: Parameters, structure: Structure
) -> dict[str, Rule]:
    in_blocks = [parameters[p].first_use for block in structure.blocks for p in block]
    end = max(in_blocks, default=-1)
    ranked = sorted(parameters.values(), key=lambda p: p.first_use)
    # What lies behind the last block (MobileNetV2 has a convolution there) stays frozen.
    inside = [p for p in ranked if p.first_use <= end]
    filters = [p for p in inside if p.kind == "weight" and len(p.type.shape) == 4]
    if len(filters) != scheme.convolutions:
        needs = f"{scheme.convolutions} convolutions up to the last block"
        raise _mismatch(chosen, needs, f"{len(filters)}")
    first_biased = filters[-scheme.biases].first_use
    found = {
        p.name: rule_of(p.name, "bias")
        for p in inside
        if p.kind == "bias" and p.first_use >= first_biased
    }
    for number, share in scheme.weights.items():
        found[filters[number].name] = _part(filters[number], share)
    return found


def _part(weight: ParamFacts, share: float) -> Rule:
    # The authors round down (conv.in_channels * keep_ratio in algorithm/core/utils/
    # partial_backward.py), a rule to the nearest: of multiples of 8, which these nets have, an
    # eighth is the same number.
    depthwise = weight.type.shape[1] == 1
    part = Channels(fraction=share, count=None, heads=None, axis="out" if depthwise else "in")
    channels = None if share == 1 else part
    return rule_of(weight.name, "weight", channels)


def _last_blocks(
    chosen: Published, scheme: LastBlocks, parameters: Parameters, structure: Structure
) -> dict[str, Rule]:
    blocks = structure.blocks
    found_kind = kind_of(parameters, blocks)
    if found_kind != scheme.kind:
        raise _mismatch(
            chosen, f"blocks of the kind '{scheme.kind}'", f"{found_kind or 'none'}"
        )
    if len(blocks) not in scheme.blocks:
        needs = f"{' or '.join(map(str, scheme.blocks))} blocks"
        raise _mismatch(chosen, needs, f"{len(blocks)}")
    pick = first_pointwise if scheme.which == "first 1x1" else attention_and_first_linear
    found = {
        p: rule_of(p, "bias")
        for block in blocks[-scheme.biases :]
        for p in biases_of(parameters, block)
    }
    for block in blocks[-scheme.weights :]:
        for p in pick(matrices(parameters, block)):
            found[p] = rule_of(p, "weight")
    return found


def _mismatch(chosen: Published, needs: str, found: str) -> UserError:
    return UserError(
        Problem(
            "preset",
            f"preset '{chosen.name}' is for {chosen.family} and needs {needs}; "
            f"the model has {found}",
            at=chosen.source,
            fix="use pockengine, which carries such a scheme over to other models, or last:N, "
            "or let `pockc search` find one",
        )
    )
