"""Chooses the channels of a weight that are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pockc.errors import Problem, UserError
from pockc.scheme.config import Channels
from pockc.scheme.facts import ModuleFacts, ParamFacts

# Their weights hold inputs before outputs; all others hold outputs first, as Linear does.
_INPUTS_FIRST = frozenset(
    {"Conv1D", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Embedding"}
)


def channel_axis(param: ParamFacts, axis: str) -> int:
    """Return the dimension of a weight that its input or output channels lie along.

    A tensor of one dimension has output channels only. Of an embedding the rows are the
    inputs: one for each word.
    """
    if len(param.type.shape) == 1:
        return 0
    inputs_first = param.module_type in _INPUTS_FIRST
    return int((axis == "in") != inputs_first)


def choose(
    wanted: Channels,
    param: ParamFacts,
    value: np.ndarray,
    modules: Sequence[ModuleFacts] = (),
) -> tuple[int, tuple[int, ...]] | None:
    """Return axis and indices of the channels to train, ascending; None if it is all of them.

    Magnitude is the Euclidean norm of a channel, or of all channels of a head; of equal ones
    the first is taken.

    Raises:
        UserError: [channels] More channels than there are, or heads that are not known.
    """
    axis = channel_axis(param, wanted.axis)
    size = param.type.shape[axis]
    members = _groups(wanted, param, size, modules)
    count = _amount(wanted, param, len(members))
    if count == len(members):
        return None
    taken = _ranked(wanted, members, value, axis)[:count]
    return axis, tuple(sorted(i for g in taken for i in members[g]))


def _amount(wanted: Channels, param: ParamFacts, available: int) -> int:
    if wanted.fraction is not None:
        return min(available, max(1, int(wanted.fraction * available + 0.5)))
    count = wanted.heads if wanted.count is None else wanted.count
    what = "heads" if wanted.count is None else f"{wanted.axis}put channels"
    if count is None or count > available:
        raise UserError(
            Problem(
                "channels",
                f"'{param.name}' has {available} {what}, and {count} should be trained",
                at=f"{param.name}: {param.type}",
                fix=f"give at most {available}",
            )
        )
    return count


def _ranked(
    wanted: Channels, members: Sequence[Sequence[int]], value: np.ndarray, axis: int
) -> list[int]:
    """Return the groups, the ones to take first."""
    if wanted.by == "first":
        return list(range(len(members)))
    if wanted.by == "random":
        # One draw per seed and size: matrices of equal size share the choice, as they should
        # where a channel runs through several of them.
        drawn = np.random.Generator(np.random.PCG64(wanted.seed)).random(len(members))
        return [int(i) for i in np.argsort(drawn, kind="stable")]
    rows = np.moveaxis(value.astype(np.float64), axis, 0).reshape(value.shape[axis], -1)
    energy = np.square(rows).sum(axis=1)
    norms = np.array([energy[list(g)].sum() for g in members])
    return [int(i) for i in np.argsort(-norms, kind="stable")]


def _groups(
    wanted: Channels, param: ParamFacts, size: int, modules: Sequence[ModuleFacts]
) -> list[range | tuple[int, ...]]:
    """Return the indices of each thing that is chosen as one: a channel, or a head."""
    if wanted.heads is None:
        return [range(i, i + 1) for i in range(size)]
    facts = _head_facts(param, modules)
    heads = facts.get("num_heads", 0)
    shared = facts.get("num_key_value_heads", heads)
    # Without a width, the only safe guess is that all heads are alike and fill the matrix.
    guess = size // heads if heads and shared == heads else 0
    width = facts.get("head_dim", guess)
    for parts, count in _divisions(heads, shared):
        if width > 0 and parts * count * width == size:
            starts = [
                [p * count * width + h * width for p in range(parts)] for h in range(count)
            ]
            return [tuple(s + i for s in at for i in range(width)) for at in starts]
    known = ", ".join(f"{k} {v}" for k, v in facts.items()) or "nothing"
    raise UserError(
        Problem(
            "channels",
            f"the {size} {wanted.axis}put channels of '{param.name}' are not made of heads",
            at=f"{param.name}: {param.type}; known of its modules: {known}",
            fix="give `fraction` or `count` instead of `heads`",
        )
    )


def _divisions(heads: int, shared: int) -> list[tuple[int, int]]:
    """Return (parts, heads) to try: queries, keys or values, and all three in one matrix."""
    return [(p, n) for p, n in ((1, heads), (1, shared), (3, heads)) if n > 0]


def _head_facts(param: ParamFacts, modules: Sequence[ModuleFacts]) -> dict[str, int]:
    """Return what is known of a parameter's owner and of the modules around it."""
    by_name: Mapping[str, ModuleFacts] = {m.name: m for m in modules}
    name = param.module
    facts: dict[str, int] = {}
    while True:
        if name in by_name:
            facts = {**by_name[name].facts, **facts}
        if not name or "num_heads" in facts:
            return facts
        name = name.rpartition(".")[0]
