"""A graph as an ONNX file for Netron and other viewers; no runtime knows its operators.

The domain of a node is the part of the step that it belongs to, or `pruned`; its name begins
with that part and the user's module. Parameters are inputs that say whether they are trained.
`onnx.checker` takes the file: operators of custom domains have no schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pockc.errors import Problem, UserError
from pockc.ir import DType, Graph, Input, Node, Param, Role, TensorType
from pockc.ir.roles import role_fields
from pockc.report.graphs import Stage

if TYPE_CHECKING:
    import onnx

DOMAIN = "pockc"
IR_VERSION = 10
"""The first in which nodes and values have metadata."""


def onnx_view(stage: Stage, producer: str) -> onnx.ModelProto:
    """Return a stage as a model to look at.

    Raises:
        UserError: [no-onnx] The package is missing.
    """
    try:
        from onnx import helper
    except ImportError as error:
        what = "an ONNX file needs a package that is missing: onnx"
        fix = "pip install 'pockc[onnx]', or write .json for Model Explorer"
        raise UserError(Problem("no-onnx", what, fix=fix)) from error
    graph = stage.graph
    used = [i for i in graph.inputs if graph.users[i.name] or i.name in graph.output_values]
    inputs = [_input(stage, i) for i in used]
    domains = sorted({_domain(stage, n) for n in graph.nodes})
    # An output is known by its value's name: a value with two roles is an output once.
    roles: dict[str, list[str]] = {}
    for output in graph.outputs:
        roles.setdefault(output.value, []).append(_spelled(output.role))
    nodes = [_node(stage, n) for n in graph.nodes]
    given = {i.name for i in used}
    # ONNX wants no graph to hand an input through; a view of it is what a reader sees.
    for value in roles:
        if value in given:
            nodes.append(helper.make_node("output", [value], [f"{value}.out"], domain=DOMAIN))
            domains = sorted({*domains, DOMAIN})
    outputs = []
    for value, told in roles.items():
        name = f"{value}.out" if value in given else value
        made = _value(name, graph.type_of(value))
        _tell(made, {"role": ", ".join(told)})
        outputs.append(made)
    shown = helper.make_graph(nodes, f"{graph.name}.{stage.name}", inputs, outputs)
    shown.value_info.extend(_value(n.name, n.type) for n in graph.nodes if n.name not in roles)
    model = helper.make_model(
        shown,
        producer_name=producer,
        opset_imports=[helper.make_opsetid(d, 1) for d in domains],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(_facts(stage)))
    return model


def _domain(stage: Stage, node: Node) -> str:
    part = "pruned" if node.name in stage.pruned else stage.phases[node.name]
    return f"{DOMAIN}.{part}" if part else DOMAIN


def _node(stage: Stage, node: Node) -> onnx.NodeProto:
    from onnx import helper

    module = "" if node.source is None else node.source.module
    body = node.attrs.get("body")
    phase = stage.phases[node.name]
    name = "/".join(filter(None, (phase, *module.split("."), node.name)))
    op = node.op if body is None else "+".join(n.op for n in body.nodes)
    made = helper.make_node(
        op, list(node.inputs), [node.name], name=name, domain=_domain(stage, node)
    )
    if node.source is not None:
        made.doc_string = str(node.source)
    if body is None:
        made.attribute.extend(
            helper.make_attribute(k, str(v)) for k, v in node.attrs.items() if v is not None
        )
    facts = {"phase": phase, "module": module, "type": str(node.type)}
    if node.name in stage.pruned:
        facts["pruned"] = "yes"
    _tell(made, {k: v for k, v in facts.items() if v})
    return made


def _input(stage: Stage, given: Input) -> onnx.ValueInfoProto:
    made = _value(given.name, given.type)
    facts = {"role": _spelled(given.role)}
    if isinstance(given.role, Param):
        share = stage.trained.get(given.role.name)
        facts["trained"] = "no" if share is None else f"{100 * share:.3g} %"
        mark = "frozen" if share is None else f"trained, {facts['trained']} of its elements"
        made.doc_string = f"{given.role.name}: {mark}"
    _tell(made, facts)
    return made


def _value(name: str, tensor: TensorType) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, _element(tensor.dtype), tensor.shape)


def _element(dtype: DType) -> int:
    from onnx import TensorProto

    names = {
        DType.F64: "DOUBLE",
        DType.F32: "FLOAT",
        DType.F16: "FLOAT16",
        DType.BF16: "BFLOAT16",
        DType.I64: "INT64",
        DType.I32: "INT32",
        DType.I16: "INT16",
        DType.I8: "INT8",
        DType.U8: "UINT8",
        DType.B1: "BOOL",
    }
    return int(TensorProto.DataType.Value(names[dtype]))


def _tell(made: Any, facts: dict[str, str]) -> None:  # noqa: ANN401  any message with properties
    for key, value in facts.items():
        made.metadata_props.add(key=key, value=value)


def _facts(stage: Stage) -> Iterator[tuple[str, str]]:
    graph: Graph = stage.graph
    yield "stage", stage.name
    yield "nodes", str(len(graph.nodes))
    yield "pruned", str(len(stage.pruned))
    yield "trained", ", ".join(stage.trained)


def _spelled(role: Role) -> str:
    return " ".join((role.keyword, *role_fields(role)))
