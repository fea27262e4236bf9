"""Graphs as JSON for Model Explorer (https://ai.google.dev/edge/model-explorer).

The format is that of its package `ai-edge-model-explorer`, `graph_builder.py`: a collection of
graphs, nodes with a namespace that the viewer folds, edges kept with the node they lead to. The
first level of the namespace is the part of the step, the others are the user's modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pockc.ir import Graph, Input, Node, OptState, Param, Role, print_node
from pockc.ir.roles import role_fields
from pockc.plan.names import tensor_name
from pockc.report.graphs import Stage
from pockc.report.style import BACKWARD, FORWARD, PRUNED, UPDATE

_BACKGROUND = {"forward": "#d6e9f5", "backward": "#fbe3d3", "update": "#d3efe6"}
_BORDER = {"forward": FORWARD, "backward": BACKWARD, "update": UPDATE}
_PRUNED_BACKGROUND = "#eceef0"
_GREY = {"backgroundColor": _PRUNED_BACKGROUND, "borderColor": PRUNED}


def collection(label: str, stages: Sequence[Stage]) -> dict[str, Any]:
    """Return a collection of graphs, one for each stage, as JSON values."""
    return {
        "label": label,
        "graphs": [_graph(s) for s in stages],
        "graphSorting": "name_asc",
    }


def _graph(stage: Stage) -> dict[str, Any]:
    graph = stage.graph
    nodes = [_input(stage, i) for i in graph.inputs if _is_used(graph, i)]
    nodes += [_node(stage, n) for n in graph.nodes]
    nodes += list(_outputs(stage))
    pruned = f", {len(stage.pruned)} of them to be pruned" if stage.pruned else ""
    return {
        "id": stage.name,
        "nodes": nodes,
        "groupNodeAttributes": {"": {"nodes": f"{len(graph.nodes)}{pruned}"}},
        "groupNodeConfigs": [
            *(
                {"namespaceRegex": f"^{re.escape(s)}$", **_GREY}
                for s in _all_pruned(stage, nodes)
            ),
            *(
                {
                    "namespaceRegex": f"^{phase}$",
                    "backgroundColor": _BACKGROUND[phase],
                    "borderColor": _BORDER[phase],
                }
                for phase in _BACKGROUND
            ),
        ],
    }


def _all_pruned(stage: Stage, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the namespaces in which every node is pruned."""
    pruned: dict[str, bool] = {}
    for node in nodes:
        parts = node["namespace"].split("/")
        for end in range(1, len(parts) + 1):
            space = "/".join(parts[:end])
            pruned[space] = pruned.get(space, True) and node["id"] in stage.pruned
    return sorted(space for space, every in pruned.items() if every)


def _is_used(graph: Graph, given: Input) -> bool:
    return bool(graph.users[given.name]) or given.name in graph.output_values


def _space(*parts: str) -> str:
    """Return a namespace of a phase and a qualified name of a module."""
    return "/".join(p for part in parts for p in part.split(".") if p)


def _input(stage: Stage, given: Input) -> dict[str, Any]:
    role = given.role
    attributes = {"type": str(given.type), "role": _spelled(role)}
    style = None
    space = _space("inputs")
    if isinstance(role, Param):
        share = stage.trained.get(role.name)
        attributes["trained"] = "no, frozen" if share is None else f"{100 * share:.3g} %"
        space = _space("forward", role.name.rpartition(".")[0])
        style = (
            (_PRUNED_BACKGROUND, PRUNED) if share is None else (_BACKGROUND["update"], UPDATE)
        )
    elif isinstance(role, OptState):
        space = _space("update", role.param.rpartition(".")[0])
        style = (_BACKGROUND["update"], UPDATE)
    label = _spelled(role)
    if isinstance(role, Param):
        mark = "trained" if role.name in stage.trained else "frozen"
        label = f"{role.name.rpartition('.')[2]} ({mark})"
    return _made(given.name, label, space, attributes, (), style)


def _node(stage: Stage, node: Node) -> dict[str, Any]:
    phase = stage.phases[node.name]
    body = node.attrs.get("body")
    ops = [node.op] if body is None else [n.op for n in body.nodes]
    attributes = {"type": str(node.type), "phase": phase or "forward"}
    style = None
    if phase:
        style = (_BACKGROUND[phase], _BORDER[phase])
    if node.name in stage.pruned:
        attributes["pruned"] = "yes: only frozen parameters need it"
        style = (_PRUNED_BACKGROUND, PRUNED)
    module = ""
    if node.source is not None:
        module = node.source.module
        attributes["from"] = str(node.source)
    if body is None:
        attributes |= {k: str(v) for k, v in node.attrs.items()}
    else:
        attributes["kernel"] = "\n".join(print_node(n) for n in body.nodes)
    label = "+".join(ops[:3]) + ("+…" if len(ops) > 3 else "")
    space = _space(phase or "forward", module)
    return _made(node.name, label, space, attributes, node.inputs, style)


def _outputs(stage: Stage) -> Iterator[dict[str, Any]]:
    for number, output in enumerate(stage.graph.outputs):
        label = _spelled(output.role)
        yield _made(
            f"output.{number}", label, "outputs", {"role": label}, (output.value,), None
        )


def _spelled(role: Role) -> str:
    if isinstance(role, Param | OptState):
        return tensor_name(role)
    return " ".join((role.keyword, *role_fields(role)))


def _made(
    name: str,
    label: str,
    space: str,
    attributes: dict[str, str],
    reads: Sequence[str],
    style: tuple[str, str] | None,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": name,
        "label": label,
        "namespace": space,
        "attrs": [{"key": k, "value": v} for k, v in attributes.items()],
        "incomingEdges": [
            {"sourceNodeId": r, "sourceNodeOutputId": "0", "targetNodeInputId": str(at)}
            for at, r in enumerate(reads)
        ],
    }
    if "type" in attributes:
        shape = {"key": "tensor_shape", "value": attributes["type"]}
        made["outputsMetadata"] = [{"id": "0", "attrs": [shape]}]
    if style is not None:
        made["style"] = {"backgroundColor": style[0], "borderColor": style[1]}
    return made
