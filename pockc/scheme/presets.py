"""Schemes by name, from the structure of a model and not from what its parts are called.

`full`, `head`, `bias` and `last:N` say what they do. `pockengine` follows the schemes that Zhu
et al., PockEngine, MICRO 2023, §4 report to have found by their sensitivity analysis:

    MobileNetV2, MCUNet    biases of the last 7 blocks, weights of the first 1x1 convolution in
                           them, classifier
    ResNet-50              the same with the last 8 blocks
    BERT, DistilBERT       biases, attention weights and the first linear layer of the
                           feed-forward part in the last 6 of 12, or 3 of 6, blocks, classifier
    Llama                  attention weights and the first linear layer of the feed-forward part
                           in the last 5 blocks

The code of PockEngine was never published, so these are the paper's words carried over to
structures, and the choice for a model that the paper does not have is ours: inverted residuals
(blocks with a depthwise convolution) are treated as MobileNetV2, other convolution blocks as
ResNet-50; transformer blocks with biases as BERT (the last half), without biases as Llama. The
exact tensor lists for MCUNet differ from net to net in the paper's predecessor (Lin et al.,
NeurIPS 2022); here it is a MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pockc.errors import Problem, UserError
from pockc.scheme.blocks import Structure, matrices, structure_of
from pockc.scheme.facts import ModuleFacts, Parameters, ParamFacts
from pockc.scheme.kinds import (
    Kind,
    attention_and_first_linear,
    biases_of,
    first_pointwise,
    kind_of,
)

INVERTED_RESIDUAL_BLOCKS = 7
RESIDUAL_BLOCKS = 8
DECODER_BLOCKS = 5


def preset(name: str, parameters: Parameters, modules: Sequence[ModuleFacts]) -> dict[str, str]:
    """Return the parameters that a preset trains, each with the reason, in the model's order.

    Raises:
        UserError: [preset] The model has not the structure that the preset speaks of.
    """
    kind, _, number = name.partition(":")
    structure = structure_of(parameters, modules)
    if kind == "last":
        chosen = _last(int(number), structure)
    else:
        chosen = _PRESETS[kind](parameters, structure)
    if not chosen:
        raise UserError(
            Problem(
                "preset",
                f"preset '{name}' finds nothing to train in this model",
                fix="write rules under `update`, or use another preset",
            )
        )
    return {p: f"preset {name}" for p in parameters if p in chosen}


def _full(parameters: Parameters, structure: Structure) -> set[str]:  # noqa: ARG001
    return set(parameters)


def _head(parameters: Parameters, structure: Structure) -> set[str]:  # noqa: ARG001
    return set(structure.head)


def _bias(parameters: Parameters, structure: Structure) -> set[str]:
    """Biases everywhere, and the head (as TinyTL, Cai et al., NeurIPS 2020, trains them)."""
    return biases_of(parameters, parameters) | set(structure.head)


def _last(count: int, structure: Structure) -> set[str]:
    found = len(structure.blocks)
    if count > found:
        names = ", ".join(structure.block_names[:3])
        raise UserError(
            Problem(
                "preset",
                f"preset 'last:{count}' needs {count} blocks, the model has {found}",
                at=f"blocks {names}, ..." if names else None,
                fix=f"use last:1 to last:{found}" if found else "use head, bias or full",
            )
        )
    return {p for block in structure.blocks[-count:] for p in block} | set(structure.head)


def _pockengine(parameters: Parameters, structure: Structure) -> set[str]:
    blocks = structure.blocks
    if not blocks:
        raise UserError(
            Problem(
                "preset",
                "preset 'pockengine' needs repeated blocks, and the model has none",
                fix="use head, bias or full, or write rules under `update`",
            )
        )
    count, pick = _pockengine_choice(kind_of(parameters, blocks), len(blocks))
    chosen = set(structure.head)
    for block in blocks[-count:]:
        chosen |= biases_of(parameters, block) | pick(matrices(parameters, block))
    return chosen


def _pockengine_choice(
    kind: Kind | None, blocks: int
) -> tuple[int, Callable[[Sequence[ParamFacts]], set[str]]]:
    """Return how many of the last blocks are trained, and which of their weights."""
    if kind == "inverted residual":
        return INVERTED_RESIDUAL_BLOCKS, first_pointwise
    if kind in ("bottleneck", "residual"):
        return RESIDUAL_BLOCKS, first_pointwise
    return DECODER_BLOCKS if kind == "decoder" else (
        blocks + 1
    ) // 2, attention_and_first_linear


_PRESETS: Mapping[str, Callable[[Parameters, Structure], set[str]]] = {
    "full": _full,
    "head": _head,
    "bias": _bias,
    "pockengine": _pockengine,
}
