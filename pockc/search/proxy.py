"""A first guess at what training a tensor brings, from gradients over a few batches.

The gradients are those of the whole model, from a compiled full update: a plain SGD step of
rate 1 changes each tensor by its gradient. The score of a tensor is the sum of squared
gradients (the trace of the empirical Fisher matrix) or |sum of gradient x weight|
(Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pockc.frontend.captured import Captured
from pockc.runtime import Artifact
from pockc.runtime.data import take_rows, whole_arrays
from pockc.scheme.channels import channel_axis, choose
from pockc.scheme.config import Channels

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


def share_of(captured: Captured, scores: Scores, weight: str, ratio: float) -> float:
    """Return the score of the channels of a weight that a ratio chooses."""
    wanted = Channels(fraction=ratio)
    param = captured.parameters[weight]
    chosen = choose(wanted, param, captured.values[weight], captured.modules)
    found = scores[weight] if chosen is None else scores[weight][list(chosen[1])]
    return float(found.sum())


def _by_channel(score: np.ndarray, name: str, captured: Captured) -> np.ndarray:
    if score.ndim == 0:
        return score.reshape(1)
    axis = channel_axis(captured.parameters[name], "out")
    found: np.ndarray = score.sum(tuple(i for i in range(score.ndim) if i != axis))
    return found
