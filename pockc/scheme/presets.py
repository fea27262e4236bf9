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

from collections.abc import Callable, Iterable, Mapping, Sequence

from pockc.errors import Problem, UserError
from pockc.scheme.blocks import Structure, matrices, structure_of
from pockc.scheme.facts import ModuleFacts, Parameters, ParamFacts

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
    return _biases(parameters, parameters) | set(structure.head)


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
    filters = [p for b in blocks for p in matrices(parameters, b) if len(p.type.shape) == 4]
    # ConvNeXt mixes depthwise filters with linear layers; what decides is the majority.
    linear = [p for b in blocks for p in matrices(parameters, b) if len(p.type.shape) == 2]
    if len(filters) >= len(linear):
        depthwise = any(p.type.shape[1] == 1 for p in filters)
        count = INVERTED_RESIDUAL_BLOCKS if depthwise else RESIDUAL_BLOCKS
        pick = _first_pointwise
    else:
        # Some decoders have biases in the projections of the attention, but nowhere else.
        ends = {matrices(parameters, b)[-1].module for b in blocks if matrices(parameters, b)}
        biased = any(p.kind == "bias" and p.module in ends for p in parameters.values())
        count = (len(blocks) + 1) // 2 if biased else DECODER_BLOCKS
        pick = _attention_and_first_linear
    chosen = set(structure.head)
    for block in blocks[-count:]:
        chosen |= _biases(parameters, block) | pick(matrices(parameters, block))
    return chosen


def _biases(parameters: Parameters, names: Iterable[str]) -> set[str]:
    return {n for n in names if parameters[n].kind == "bias"}


def _first_pointwise(weights: Sequence[ParamFacts]) -> set[str]:
    """Return the first 1x1 convolution of a block.

    A block that begins with a full filter has one in its shortcut at most: there the first
    filter is taken.
    """
    pointwise = [p for p in weights if p.type.shape[2:] == (1, 1)]
    if weights and 1 not in weights[0].type.shape[1:]:
        pointwise = []
    return {p.name for p in (pointwise or weights)[:1]}


def _attention_and_first_linear(weights: Sequence[ParamFacts]) -> set[str]:
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


_PRESETS: Mapping[str, Callable[[Parameters, Structure], set[str]]] = {
    "full": _full,
    "head": _head,
    "bias": _bias,
    "pockengine": _pockengine,
}
