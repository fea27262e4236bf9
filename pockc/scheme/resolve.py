"""From rules and a preset to the scheme: what is trained of each parameter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

import numpy as np

from pockc.errors import Problem, UserError
from pockc.scheme.blocks import structure_of
from pockc.scheme.channels import channel_axis, choose
from pockc.scheme.config import Config, Rule
from pockc.scheme.facts import ModuleFacts, Parameters, ParamFacts
from pockc.scheme.presets import preset
from pockc.scheme.published import carried_over, published, published_rules
from pockc.scheme.scheme import Scheme, Trained

SHOWN = 12
"""How many names an error lists."""

Selection = tuple[int, tuple[int, ...]]


def resolve(
    config: Config,
    parameters: Parameters,
    values: Mapping[str, np.ndarray],
    modules: Sequence[ModuleFacts] = (),
    aliases: Mapping[str, str] | None = None,
) -> Scheme:
    """Return what is trained.

    The preset, if there is one, comes first. Of the rules that match a tensor the last one
    decides alone; what no rule matches stays as the preset has it, or is frozen. With neither
    preset nor rules everything is trained.

    Args:
        config: The configuration.
        parameters: What can be trained, in the model's order.
        values: Their values, for channels chosen by magnitude.
        modules: The model's modules, for presets and heads.
        aliases: Other names of tied parameters, which patterns may use too.

    Raises:
        UserError: [rule-no-match], [rule-trains-nothing], [channels], [preset] or
            [nothing-trained].
    """
    names = _names(parameters, aliases or {})
    start = config.preset or ("full" if config.update is None else None)
    choices = _Choices(parameters, values, modules)
    trained, origin = _of_preset(start, parameters, modules, choices)
    deciding: dict[str, int] = {}
    rules = config.update or ()
    problems: list[Problem] = []
    for number, rule in enumerate(rules):
        matched = [p for p, known in names.items() if _matches(rule.match, known)]
        problems += _rule_problems(config, number, rule, matched, parameters)
        deciding |= dict.fromkeys(matched, number)
    if problems:
        raise UserError(*problems)
    for name, number in deciding.items():
        rule = rules[number]
        trained.pop(name, None)
        if _trains(rule, parameters[name]):
            because = f"update[{number}] {rule.match}: {rule.train}"
            selection = choices.selection(rule, parameters[name])
            trained[name] = Trained(selection, rule.lr_scale, rule.weight_decay, because)
    if not trained:
        what = "the rules train nothing: every parameter of the model is frozen"
        fix = "add a rule with train: bias, weight or all"
        raise UserError(Problem("nothing-trained", what, at=config.place("update"), fix=fix))
    return Scheme({p: trained[p] for p in parameters if p in trained}, origin)


def _of_preset(
    name: str | None,
    parameters: Parameters,
    modules: Sequence[ModuleFacts],
    choices: _Choices,
) -> tuple[dict[str, Trained], str]:
    """Return what a preset trains, and its origin if a paper has published it."""
    if name is None:
        return {}, ""
    structure = structure_of(parameters, modules)
    paper = published().get(name)
    if name == "pockengine":
        paper = carried_over(parameters, structure)
    if paper is None:
        because = f"preset {name}"
        return {p: Trained(because=because) for p in preset(name, parameters, structure)}, ""
    rules = published_rules(paper, parameters, structure)
    because = f"preset {paper.name}"
    trained = {
        p: Trained(choices.selection(rule, parameters[p]), because=because)
        for p, rule in rules.items()
    }
    return trained, paper.origin


def recomputed_modules(config: Config, modules: Sequence[ModuleFacts]) -> tuple[str, ...]:
    """Return the modules that a configuration wants computed again, in the model's order.

    Of a module and one in it that both match, only the outer one counts.

    Raises:
        UserError: [recompute] A pattern matches no module.
    """
    known = [m.name for m in modules if m.name]
    matched = [n for n in known if any(fnmatchcase(n, p) for p in config.recompute)]
    problems = [
        Problem(
            "recompute",
            f"no module matches '{pattern}'",
            config.place("recompute", number),
            fix=f"choose from: {_list(_by_likeness(pattern, known))}",
        )
        for number, pattern in enumerate(config.recompute)
        if not any(fnmatchcase(n, pattern) for n in known)
    ]
    if problems:
        raise UserError(*problems)
    return tuple(n for n in matched if not any(n.startswith(f"{m}.") for m in matched))


def _names(parameters: Parameters, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return all names of each parameter."""
    others: dict[str, list[str]] = {p: [p] for p in parameters}
    for alias, name in aliases.items():
        if name in others:
            others[name].append(alias)
    return {p: tuple(known) for p, known in others.items()}


def _matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether a pattern matches one of the names, or a module that it lies in."""
    return any(fnmatchcase(part, pattern) for name in names for part in _parts(name))


def _parts(name: str) -> Iterator[str]:
    """Yield a name and those of the modules that it lies in, the innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _trains(rule: Rule, param: ParamFacts) -> bool:
    return rule.train in ("all", param.kind)


def _rule_problems(
    config: Config, number: int, rule: Rule, matched: list[str], parameters: Parameters
) -> Iterator[Problem]:
    at = config.place("update", number)
    if not matched:
        near = _nearest(rule.match, parameters)
        yield Problem(
            "rule-no-match",
            f"no parameter or module matches '{rule.match}'",
            at,
            fix=f"choose from: {_list(near)}",
        )
    elif rule.train != "none" and not any(_trains(rule, parameters[p]) for p in matched):
        yield Problem(
            "rule-trains-nothing",
            f"'{rule.match}' matches {_list(matched)}, but none of them is a {rule.train}",
            at,
            fix="use train: all, or another pattern",
        )


def _nearest(pattern: str, parameters: Parameters) -> list[str]:
    """Return all names that a pattern could mean, modules too, the nearest first."""
    known = dict.fromkeys(p for name in parameters for p in reversed(list(_parts(name))))
    return _by_likeness(pattern, known)


def _by_likeness(pattern: str, known: Iterable[str]) -> list[str]:
    plain = pattern.rstrip("*").rstrip(".")

    def distance(name: str) -> float:
        return -SequenceMatcher(None, plain, name).ratio()

    return sorted(known, key=distance)


def _list(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


class _Choices:
    """The channels that rules choose."""

    def __init__(
        self,
        parameters: Parameters,
        values: Mapping[str, np.ndarray],
        modules: Sequence[ModuleFacts],
    ) -> None:
        self._parameters, self._values, self._modules = parameters, values, modules

    def selection(self, rule: Rule, param: ParamFacts) -> Selection | None:
        """Return the channels of a parameter; a bias has those of its module's weight."""
        if rule.channels is None or not param.type.shape:
            return None
        if len(param.type.shape) > 1:
            return self._choose(rule, param)
        if rule.channels.axis == "in":
            return None
        weight = self._weight_beside(param)
        if weight is None:
            return self._choose(rule, param)
        chosen = self._choose(rule, weight)
        return None if chosen is None else (0, chosen[1])

    def _choose(self, rule: Rule, param: ParamFacts) -> Selection | None:
        if rule.channels is None:
            return None
        return choose(rule.channels, param, self._values[param.name], self._modules)

    def _weight_beside(self, param: ParamFacts) -> ParamFacts | None:
        """Return the matrix of the same module whose output channels a vector goes with."""
        for other in self._parameters.values():
            if other.module == param.module and len(other.type.shape) > 1:
                size = other.type.shape[channel_axis(other, "out")]
                if size == param.type.shape[0]:
                    return other
        return None
