"""The passes in their order, with a reason for each, and the entries of an artifact.

`compile_entries` takes the captured graphs through the passes; which they are is decided by
`Choices` alone. Entries share one state, so what concerns the state (layouts, constants folded
into weights) is decided for all of them together.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pockc.ir import BufferUpdate, Graph, Param
from pockc.passes.accumulate_gradients import AccumulateGradients, apply_update_graph
from pockc.passes.add_rows import AddRows
from pockc.passes.attach_optimizer import Attachment, AttachOptimizer
from pockc.passes.base import Pass, run_passes
from pockc.passes.canonicalize import Canonicalize
from pockc.passes.choose_layout import ChooseLayout
from pockc.passes.clip_gradients import ClipGradients
from pockc.passes.decompose import Decompose
from pockc.passes.fold_constants import FoldConstants
from pockc.passes.fold_frozen import FoldFrozen
from pockc.passes.fuse import Fuse
from pockc.passes.fusion_rules import FusionRules
from pockc.passes.layout_wishes import Order, state_layouts
from pockc.passes.prune_backward import PruneBackward
from pockc.passes.recompute import Recompute
from pockc.passes.recompute_blocks import RecomputeBlocks
from pockc.passes.reorder import Reorder
from pockc.passes.reuse_clamped import ReuseClamped
from pockc.passes.scale_filters import ScaleFilters
from pockc.passes.selecting import Selection
from pockc.passes.share_common import ShareCommon
from pockc.passes.slice_batch import SliceBatch
from pockc.passes.slice_channels import SliceChannels
from pockc.passes.update_in_place import UpdateInPlace

Layouts = tuple[tuple[str, Order], ...]


class Form(enum.Enum):
    """What a backend wants graphs to be in the end.

    KERNELS: one node per kernel, in the order in which they run, with layouts and in place.
    OPERATORS: whole operators in row-major order, for a runtime that decides on these itself.
    GRADIENTS: the same, but gradients are what a step gives: that runtime has an optimizer.
    """

    KERNELS = "kernels"
    OPERATORS = "operators"
    GRADIENTS = "gradients"


@dataclass(frozen=True)
class Choices:
    """What the passes are told about the user's wishes and the backend.

    Attributes:
        trainable: The parameters that are trained, in whole or in part.
        attachments: The optimizer's recipe for each of them.
        selections: Axis and indices of those that are trained in part.
        values: Parameters and buffers; those that nothing updates are folded into constants.
        max_norm: Bound of the norm of all gradients; None for no clipping.
        micro_batches: How many calls of `train_step` make one update.
        native: The ops that the backend lowers; None leaves every op as it is.
        rules: What the backend can fuse; None for no fusion.
        form: What the backend wants graphs to be.
        recomputed: Modules that are computed again in backward.
    """

    trainable: frozenset[str]
    attachments: tuple[Attachment, ...] = ()
    selections: tuple[tuple[str, Selection], ...] = ()
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    max_norm: float | None = None
    micro_batches: int = 1
    native: frozenset[str] | None = None
    rules: FusionRules | None = field(default_factory=FusionRules)
    form: Form = Form.KERNELS
    recomputed: tuple[str, ...] = ()


def backward_passes(choices: Choices, frozen: FoldFrozen) -> tuple[Pass, ...]:
    """From the captured training graph to the gradients of what is trained."""
    return (
        *tidy_passes(),  # first: every later pass knows one form of each thing
        PruneBackward(choices.trainable),  # before anything is spent on frozen tensors
        frozen,  # after pruning: only then is known what reads a frozen weight
        *((SliceChannels(choices.selections),) if choices.selections else ()),
        *tidy_passes(),  # folding and slicing leave constants and neighbours to merge
        ScaleFilters(),  # after folding: what is left are factors of trained tensors
        *tidy_passes(),  # the sums that scaling moves are the weight gradients that exist
        ReuseClamped(),  # after folding, which must see a norm's output as it is read
    )


def update_passes(choices: Choices) -> tuple[Pass, ...]:
    """From gradients to new values."""
    return (
        # before the optimizer: it must see the clipped gradients
        *((ClipGradients(choices.max_norm),) if choices.max_norm is not None else ()),
        *(
            (AttachOptimizer(choices.attachments),)  # after slicing: its state has that size
            if choices.form is not Form.GRADIENTS
            else ()
        ),
        *tidy_passes(),  # merges the scalars that all recipes compute, as bias corrections
    )


def forward_passes(frozen: FoldFrozen) -> tuple[Pass, ...]:
    """For the entries that train nothing."""
    return (*tidy_passes(), frozen, *tidy_passes())


def tidy_passes() -> tuple[Pass, ...]:
    """One form of each thing, each thing once."""
    return (
        Canonicalize(),  # before sharing: equal things must look equal
        FoldConstants(),  # after the identities, which leave constants beside each other
        ShareCommon(),
    )


def kernel_passes(choices: Choices, layouts: Layouts) -> tuple[Pass, ...]:
    """From a finished graph to one node per kernel, in the order in which they run."""
    rules = choices.rules
    anchors = rules is not None and rules.update_in_anchor
    return (
        # before layout: what is decomposed needs layouts too
        *((Decompose(choices.native),) if choices.native is not None else ()),
        AddRows(),  # of the operators: another runtime would add rows of one place one by one
        SliceBatch(),  # before layout and fusion: the slices are ordinary nodes to them
        ChooseLayout(layouts),  # before fusion: what is fused must agree in layout
        ShareCommon(),  # two readers may have asked for the same copy
        # after sharing, which would undo it, and before the cheap values of what is kept then
        *((RecomputeBlocks(choices.recomputed),) if choices.recomputed else ()),
        # likewise; before fusion, which makes one kernel of each
        *((Recompute(rules),) if rules is not None else ()),
        *((Fuse(rules),) if rules is not None else ()),  # all structure is final from here on
        Reorder(anchors),  # after fusion: a kernel is what is ordered
        UpdateInPlace(anchors),  # needs the order
    )


def operator_passes(choices: Choices) -> tuple[Pass, ...]:
    """From a finished graph to the operators of another runtime."""
    return (
        *((Decompose(choices.native),) if choices.native is not None else ()),
        *tidy_passes(),
    )


def compile_entries(
    graphs: Mapping[str, Graph], choices: Choices, dump_to: Path | None = None
) -> dict[str, Graph]:
    """Return the entries of an artifact, ready for a backend.

    Args:
        graphs: The captured graphs: "train", "evaluate" and "predict".
        choices: What the user and the backend want.
        dump_to: Folder for the graphs after each pass, one folder per entry in it.

    Returns:
        "train_step", "evaluate" and "predict"; with several micro-batches also "apply_update".
    """
    layouts = state_layouts(graphs.values())
    frozen = frozen_values(graphs["train"], choices)
    train = graphs["train"].replace(name="train_step")
    early = backward_passes(choices, FoldFrozen(frozen))
    late = (
        kernel_passes(choices, layouts)
        if choices.form is Form.KERNELS
        else operator_passes(choices)
    )

    def folder(name: str) -> Path | None:
        return None if dump_to is None else dump_to / name

    gradients = run_passes(train, early, folder("train_step"))
    entries: dict[str, Graph] = {}
    lists: dict[str, tuple[Graph, tuple[Pass, ...]]] = {}
    update = update_passes(choices)
    if choices.micro_batches > 1:
        lists["apply_update"] = apply_update_graph(gradients, choices.micro_batches), update
        update = (AccumulateGradients(),)
    entries["train_step"] = run_passes(
        gradients, (*update, *late), folder("train_step"), first=len(early) + 1
    )
    forward = forward_passes(FoldFrozen(frozen, held=read_parameters(gradients)))
    for name in ("evaluate", "predict"):
        if name in graphs:
            lists[name] = graphs[name].replace(name=name), forward
    for name, (graph, passes) in lists.items():
        entries[name] = run_passes(graph, (*passes, *late), folder(name))
    return entries


def frozen_values(train: Graph, choices: Choices) -> dict[str, np.ndarray]:
    """Return the parameters and buffers that no step changes."""
    updated = {o.role.name for o in train.outputs if isinstance(o.role, BufferUpdate)}
    return {
        name: value
        for name, value in choices.values.items()
        if name not in choices.trainable and name not in updated
    }


def read_parameters(graph: Graph) -> frozenset[str]:
    """Return the parameters that a graph reads."""
    return frozenset(
        i.role.name for i in graph.inputs if isinstance(i.role, Param) and graph.users[i.name]
    )
