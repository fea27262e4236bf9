"""The graphs of an artifact for those who look at them: a stage, its phases, what is pruned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from pockc.errors import Problem, UserError
from pockc.ir import Gradient, Graph, Node, Param, Update
from pockc.ir.phases import PHASES, forward_nodes, step_phases
from pockc.ir.source_text import read_sources
from pockc.ir.texts import graph_texts, parse_outline
from pockc.passes.base import INPUT_STAGE
from pockc.passes.prune_backward import PruneBackward
from pockc.report.subject import STEP, Subject
from pockc.runtime.opening import read_graph_text

CAPTURED, FINAL = "captured", "final"


@dataclass(frozen=True)
class Stage:
    """A graph on its way through the passes.

    Attributes:
        name: As `captured`, `04_PruneBackward` or `final`.
        graph: With the user's lines.
        trained: The parameters that the artifact trains, and how much of each: 0 to 1.
        phases: Which part of the step each node belongs to, "" in an entry that trains nothing.
        pruned: The nodes that only frozen parameters need: pruning removes them.
    """

    name: str
    graph: Graph
    trained: Mapping[str, float]
    phases: Mapping[str, str]
    pruned: frozenset[str]


def stage_names(subject: Subject) -> list[str]:
    """Return the stages in the order of the passes, and the other entries."""
    passes = [n for n in subject.stages if n != INPUT_STAGE]
    others = [n for n in subject.manifest.entries if n != STEP]
    return [*([CAPTURED] if INPUT_STAGE in subject.stages else []), *passes, FINAL, *others]


def read_stage(subject: Subject, name: str) -> Stage:
    """Return a stage of the training step, or the final graph of another entry, by name.

    A pass is found by its number or its name as well: `4`, `PruneBackward`.

    Raises:
        UserError: [no-stage] There is no such stage; names the choices.
    """
    known = stage_names(subject)
    found = name if name in known else _by_pass(known, name)
    if found is None:
        near = get_close_matches(name, known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        what = f"{subject.path} has no stage '{name}'{hint}"
        raise UserError(Problem("no-stage", what, fix=f"choose from: {', '.join(known)}"))
    return _stage(subject, found)


def _by_pass(known: list[str], name: str) -> str | None:
    """Return the last stage of a pass that is named alone, or the stage of a number."""
    for stage in reversed(known):
        number, _, pass_name = stage.partition("_")
        if number.isdecimal() and (pass_name == name or number == name.zfill(2)):
            return stage
    return None


def _stage(subject: Subject, name: str) -> Stage:
    key = INPUT_STAGE if name == CAPTURED else name
    text = subject.stages.get(key)
    if text is None:
        text = graph_texts(read_graph_text(subject.path))[STEP if name == FINAL else name]
    sources = read_sources(text)
    graph = parse_outline(text)
    graph = graph.replace(
        nodes=tuple(replace(n, source=sources.get(n.name)) for n in graph.nodes)
    )
    trained = trained_shares(subject)
    phase = _phases(graph)
    return Stage(
        name,
        graph,
        trained,
        {n.name: phase(n) for n in graph.nodes},
        _pruned(graph, frozenset(trained)),
    )


def trained_shares(subject: Subject) -> dict[str, float]:
    """Return the trained parameters and the share of their elements that a step changes."""
    found = {}
    for name, tensor in subject.manifest.tensors.items():
        if tensor.kind == "param" and tensor.trained:
            found[name] = tensor.trained / math.prod(tensor.shape)
    return found


def _phases(graph: Graph) -> Callable[[Node], str]:
    """Return the phase of a node; before the optimizer is attached there is no update."""
    if not any(isinstance(o.role, Gradient) for o in graph.outputs):
        return step_phases(graph)
    forward = forward_nodes(graph)
    return lambda node: PHASES[0] if node.name in forward else PHASES[1]


def _pruned(graph: Graph, trained: frozenset[str]) -> frozenset[str]:
    """Return what pruning takes out of a graph; nothing once it was pruned."""
    given = {o.role.param for o in graph.outputs if isinstance(o.role, Gradient | Update)}
    if given <= trained:
        return frozenset()
    kept = PruneBackward(trained & given)(graph)
    return frozenset(n.name for n in graph.nodes) - {n.name for n in kept.nodes}


def module_of(parameter: str) -> str:
    """Return the module that a parameter belongs to, by its qualified name."""
    return parameter.rpartition(".")[0]


def parameters_of(graph: Graph) -> dict[str, str]:
    """Return the parameters of a graph and the inputs that hold them, in order."""
    return {i.role.name: i.name for i in graph.inputs if isinstance(i.role, Param)}
