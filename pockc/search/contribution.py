"""What training a part of a model brings: by short fine-tunes, or by a first-order proxy.

Lin et al., On-Device Training Under 256KB Memory, NeurIPS 2022, section 3.2: the accuracy
gained by training the biases of the last k blocks over training the head alone, and by
training one more weight at a share of its channels over training biases alone; the sum of
the parts predicts the whole well enough to search by. Here a weight's fine-tune trains the
biases from its own block on, and is compared with the one that trains just these: what lies
before it stays frozen, so that a late weight is as cheap to try as it is to train.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured
from pockc.search.proxy import Scores, share_of
from pockc.search.space import Choice, Genes, Space, Unit

DETAILS = ("block", "weight", "ratio")
"""What is fine-tuned by itself: all weights of a block, a weight, a weight at each ratio."""
MEASURES = ("loss", "accuracy")
"""What a gain is a gain of; a smaller loss is a gain."""

Results = Mapping[str, Mapping[str, float]]
"""What fine-tunes found, by candidate."""


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


@dataclass(frozen=True)
class Trial:
    """A candidate for a fine-tune.

    Attributes:
        genes: What is trained.
        base: The candidate that its result is compared with; empty for the head.
        weight: The weight that is tried, or the block whose weights all are.
        ratio: The share of output channels.
    """

    genes: Genes
    base: str = ""
    weight: str = ""
    ratio: float = 1.0


def from_proxy(space: Space, captured: Captured, scores: Scores) -> Contributions:
    """Return contributions by scores alone, as shares of the score of all blocks."""
    total = sum(float(scores[p].sum()) for u in space.units for p in (*u.biases, *u.weights))
    gains = []
    for unit in space.units:
        row = []
        for choice in unit.menu:
            part = sum(float(scores[p].sum()) for p in unit.biases) if choice.bias else 0.0
            part += sum(share_of(captured, scores, w, choice.ratio) for w in choice.weights)
            row.append(part / total if total else 0.0)
        gains.append(tuple(row))
    return Contributions(tuple(gains))


def trials(space: Space, detail: str = "weight") -> dict[str, Trial]:
    """Return what is fine-tuned, by name, the last blocks first."""
    units = space.units
    found = {"head": Trial((0,) * len(units))}
    after: Genes = ()
    base = "head"
    for at in reversed(range(len(units))):
        unit = units[at]
        frozen = (0,) * at
        bias = _entry(unit, Choice(bias=True))
        if bias is not None:
            name = f"bias of last {len(units) - at}"
            found[name] = Trial((*frozen, bias, *after), base)
            base = name
        for name, choice in _weight_choices(unit, detail):
            gene = _entry(unit, choice)
            if gene is not None:
                tried = unit.name if detail == "block" else choice.weights[0]
                found[name] = Trial((*frozen, gene, *after), base, tried, choice.ratio)
        after = (bias or 0, *after)
    return found


def _weight_choices(unit: Unit, detail: str) -> Iterable[tuple[str, Choice]]:
    bias = bool(unit.biases)
    if detail == "block":
        yield f"weights of {unit.name}", Choice(bias, unit.weights)
        return
    ratios = sorted({c.ratio for c in unit.menu if c.weights}, reverse=True)
    for weight in unit.weights:
        for ratio in ratios if detail == "ratio" else (1.0,):
            yield _named(weight, ratio), Choice(bias, (weight,), ratio)


def _named(weight: str, ratio: float) -> str:
    return weight if ratio == 1 else f"{weight} at {ratio:g}"


def _entry(unit: Unit, choice: Choice) -> int | None:
    return unit.menu.index(choice) if choice in unit.menu else None


def promising(
    tried: Mapping[str, Trial], captured: Captured, scores: Scores, most: int
) -> dict[str, Trial]:
    """Return the candidates without the weights that a proxy thinks least of.

    Args:
        tried: All candidates.
        captured: The model.
        scores: The proxy.
        most: How many weights are kept; biases and head always are.
    """
    weights = [n for n, t in tried.items() if t.weight]

    def score(name: str) -> float:
        trial = tried[name]
        inside = [p for p in captured.parameters if _within(p, trial.weight)]
        kept = [p for p in inside if captured.parameters[p].kind == "weight"]
        return sum(share_of(captured, scores, p, trial.ratio) for p in kept)

    left_out = set(sorted(weights, key=score, reverse=True)[most:])
    return {n: t for n, t in tried.items() if n not in left_out}


def _within(parameter: str, part: str) -> bool:
    return parameter == part or parameter.startswith(part + ".")


class _Measured:
    """Gains over their bases, read off the results of fine-tunes."""

    def __init__(
        self,
        captured: Captured,
        scores: Scores,
        tried: Mapping[str, Trial],
        values: Mapping[str, float],
    ) -> None:
        self.captured, self.scores = captured, scores
        self.found: dict[tuple[str, float], float] = {}
        for name, trial in tried.items():
            if trial.weight and name in values:
                gain = max(0.0, values[name] - values[trial.base])
                self.found[trial.weight, trial.ratio] = gain
        self._guess = self._per_score()

    def _per_score(self) -> float:
        """Return the gain for each square root of a score, over all that was measured."""
        known = [(g, self._root(w, r)) for (w, r), g in self.found.items() if w in self.scores]
        total = sum(root for _, root in known)
        return sum(g for g, _ in known) / total if total else 0.0

    def _root(self, weight: str, ratio: float) -> float:
        return math.sqrt(max(0.0, share_of(self.captured, self.scores, weight, ratio)))

    def of_weight(self, weight: str, ratio: float) -> float:
        """Return the gain of a weight; more channels never bring less."""
        measured = {r: g for (w, r), g in self.found.items() if w == weight}
        below = [g for r, g in measured.items() if r <= ratio]
        if ratio in measured:
            return max(below)
        above = min((r for r in measured if r > ratio), default=None)
        if above is None:
            return max([self._guess * self._root(weight, ratio), *below])
        # Half of the channels bring more than half of what all bring: the square root.
        whole = self._root(weight, above)
        part = self._root(weight, ratio) / whole if whole else 0.0
        return max([measured[above] * part, *below])

    def of_choice(self, unit: Unit, choice: Choice) -> float:
        """Return the gain of the weights of a choice."""
        whole = self.found.get((unit.name, 1.0))
        if whole is None:
            return sum(self.of_weight(w, choice.ratio) for w in choice.weights)
        total = sum(float(self.scores[w].sum()) for w in unit.weights)
        part = sum(
            share_of(self.captured, self.scores, w, choice.ratio) for w in choice.weights
        )
        return whole * math.sqrt(part / total) if total else 0.0


def from_results(
    space: Space,
    captured: Captured,
    scores: Scores,
    tried: Mapping[str, Trial],
    results: Results,
    measure: str = "loss",
) -> Contributions:
    """Return contributions from fine-tunes; the proxy fills in what was not tried.

    Args:
        space: The schemes.
        captured: The model.
        scores: The proxy.
        tried: The candidates.
        results: `accuracy` and `loss` of the candidates.
        measure: One of `MEASURES`.

    Raises:
        UserError: [contributions] The model reports no accuracy.
    """
    values = {n: value_of(results[n], measure) for n in tried if n in results}
    count = len(space.units)
    biases = [0.0]
    for k in range(1, count + 1):
        found = values.get(f"bias of last {k}")
        biases.append(max(biases[-1], biases[-1] if found is None else found - values["head"]))
    measured = _Measured(captured, scores, tried, values)
    gains = []
    for at, unit in enumerate(space.units):
        of_bias = biases[count - at] - biases[count - at - 1]
        gains.append(
            tuple((of_bias if c.bias else 0.0) + measured.of_choice(unit, c) for c in unit.menu)
        )
    return Contributions(tuple(gains), values["head"])


def value_of(result: Mapping[str, float], measure: str) -> float:
    """Return what a fine-tune reached: the accuracy, or minus the loss.

    Raises:
        UserError: [contributions] It has no accuracy.
    """
    if measure == "loss":
        return -result["loss"]
    if "accuracy" not in result:
        what = "the fine-tunes report no accuracy: the model's loss is not over classes"
        fix = "search by --score loss"
        raise UserError(Problem("contributions", what, fix=fix))
    return result["accuracy"]


def weight_gains(
    captured: Captured,
    scores: Scores,
    tried: Mapping[str, Trial],
    results: Results,
    measure: str = "loss",
) -> dict[str, float]:
    """Return what each weight of the blocks brings, all channels, for its rank in a block."""
    values = {n: value_of(results[n], measure) for n in tried if n in results}
    found = _Measured(captured, scores, tried, values)
    return {
        n: found.of_weight(n, 1.0)
        for n, p in captured.parameters.items()
        if p.kind == "weight" and len(p.type.shape) > 1
    }
