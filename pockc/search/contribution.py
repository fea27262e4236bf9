"""What training a part of a model brings: by short fine-tunes, or by a first-order proxy.

Lin et al., On-Device Training Under 256KB Memory, NeurIPS 2022, section 3.2: the accuracy
gained by training the biases of the last k blocks, and by training one weight, each over
what training the head alone reaches; the sum of the parts predicts the whole well enough to
search by.

The proxy takes gradients of the whole model over a few batches from a compiled full update:
a plain SGD step of rate 1 changes each tensor by its gradient. Its score of a tensor is the
sum of squared gradients (the trace of the empirical Fisher matrix) or |sum of gradient x
weight| (Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pockc.frontend.captured import Captured
from pockc.runtime import Artifact
from pockc.runtime.data import take_rows, whole_arrays
from pockc.scheme.channels import choose
from pockc.scheme.config import Channels
from pockc.search.space import Choice, Genes, Space, Unit

PROXIES = ("fisher", "gradient-weight")

Scores = Mapping[str, np.ndarray]
"""For each parameter the score of each of its output channels, f64 (channels)."""


def proxy_scores(
    artifact: Artifact,
    captured: Captured,
    data: Mapping[str, np.ndarray],
    batches: int = 8,
    kind: str = "fisher",
) -> Scores:
    """Return first-order scores from gradients over some batches.

    Args:
        artifact: A full update by plain SGD without weight decay; its weights come back as they
            were.
        captured: The model.
        data: Arrays by input name.
        batches: How many batches.
        kind: One of `PROXIES`.
    """
    specs = artifact.train_inputs
    arrays = whole_arrays(specs, data) or ()
    rows = len(arrays[0])
    order = np.random.default_rng(0).permutation(rows)
    names = list(captured.parameters)
    start = artifact.state_dict()
    sums = {n: np.zeros(captured.parameters[n].shape, np.float64) for n in names}
    taken = max(1, min(batches, rows // artifact.batch_rows))
    for number in range(taken):
        chosen = np.resize(order[number * artifact.batch_rows :], artifact.batch_rows)
        artifact.load_state(start)
        artifact.train_step(*take_rows(specs, arrays, chosen), lr=1.0)
        after = artifact.state_dict()
        for name in names:
            gradient = start[name].astype(np.float64) - after[name]
            sums[name] += gradient**2 if kind == "fisher" else gradient * start[name]
    artifact.load_state(start)
    return {n: _by_channel(np.abs(s) / taken, n, captured) for n, s in sums.items()}


def _by_channel(score: np.ndarray, name: str, captured: Captured) -> np.ndarray:
    from pockc.scheme.channels import channel_axis

    if score.ndim == 0:
        return score.reshape(1)
    axis = channel_axis(captured.parameters[name], "out")
    found: np.ndarray = score.sum(tuple(i for i in range(score.ndim) if i != axis))
    return found


@dataclass(frozen=True)
class Contributions:
    """What each choice of each block brings.

    Attributes:
        gains: For each block the gain of each choice of its menu.
        baseline: What the head alone reaches; 0 for a proxy.
    """

    gains: tuple[tuple[float, ...], ...]
    baseline: float = 0.0

    def of(self, genes: Genes) -> float:
        """Return the sum of the gains of a scheme's choices."""
        return sum(g[i] for g, i in zip(self.gains, genes, strict=True))


def from_proxy(space: Space, captured: Captured, scores: Scores) -> Contributions:
    """Return contributions by scores alone, as shares of the score of all blocks."""
    total = sum(float(scores[p].sum()) for u in space.units for p in (*u.biases, *u.weights))
    gains = []
    for unit in space.units:
        row = []
        for choice in unit.menu:
            part = sum(float(scores[p].sum()) for p in unit.biases) if choice.bias else 0.0
            part += sum(_share(captured, scores, w, choice.ratio) for w in choice.weights)
            row.append(part / total if total else 0.0)
        gains.append(tuple(row))
    return Contributions(tuple(gains))


def _share(captured: Captured, scores: Scores, weight: str, ratio: float) -> float:
    """Return the score of the channels of a weight that a ratio chooses."""
    wanted = Channels(fraction=ratio)
    param = captured.parameters[weight]
    chosen = choose(wanted, param, captured.values[weight], captured.modules)
    found = scores[weight] if chosen is None else scores[weight][list(chosen[1])]
    return float(found.sum())


def candidates(space: Space) -> dict[str, Genes]:
    """Return what is tuned: the head, biases of the last k blocks, each block's weights."""
    none = (0,) * len(space.units)
    found = {"head": none}
    for at in reversed(range(len(space.units))):
        count = len(space.units) - at
        if any(c == Choice(bias=True) for c in space.units[at].menu):
            found[f"bias of last {count}"] = tuple(
                _bias_gene(u) if i >= at else 0 for i, u in enumerate(space.units)
            )
        found[f"weights of {space.units[at].name}"] = tuple(
            len(u.menu) - 1 if i == at else 0 for i, u in enumerate(space.units)
        )
    return found


def _bias_gene(unit: Unit) -> int:
    return next((i for i, c in enumerate(unit.menu) if c == Choice(bias=True)), 0)


def from_results(
    space: Space, captured: Captured, scores: Scores, results: Mapping[str, Mapping[str, float]]
) -> Contributions:
    """Return contributions from fine-tunes; within a block they are divided by the proxy.

    Args:
        space: The schemes.
        captured: The model.
        scores: The proxy.
        results: `accuracy` (or minus the loss) as `score` of each candidate.
    """
    head = results["head"]["score"]
    count = len(space.units)
    bias = [0.0]
    for k in range(1, count + 1):
        found = results.get(f"bias of last {k}")
        bias.append(max(bias[-1], found["score"] - head if found else bias[-1]))
    gains = []
    for at, unit in enumerate(space.units):
        of_bias = bias[count - at] - bias[count - at - 1]
        # The largest entry of a menu trains the biases of its block as well.
        whole = max(0.0, results[f"weights of {unit.name}"]["score"] - head)
        gains.append(
            tuple(_gain(c, unit, captured, scores, (of_bias, whole)) for c in unit.menu)
        )
    return Contributions(tuple(gains), head)


def _gain(
    choice: Choice, unit: Unit, captured: Captured, scores: Scores, gains: tuple[float, float]
) -> float:
    of_bias, whole = gains
    total = sum(float(scores[w].sum()) for w in unit.weights)
    part = sum(_share(captured, scores, w, choice.ratio) for w in choice.weights)
    share = part / total if total else 0.0
    # Half of the channels bring more than half of what all bring: the square root.
    return (of_bias if choice.bias else 0.0) + whole * math.sqrt(share)


def as_sequence(contributions: Contributions) -> Sequence[Sequence[float]]:
    """Return the gains as JSON values."""
    return [list(row) for row in contributions.gains]
