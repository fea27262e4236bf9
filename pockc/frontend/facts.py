"""Plain facts about a model: names, tied tensors, modules, and which parameters are biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from pockc.frontend.captured import Kind, ModuleInfo, ParamInfo
from pockc.ir import Gradient, Graph, Input, Param

_COUNTS = {
    "num_heads": ("num_heads", "num_attention_heads", "n_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "attention_head_size", "head_size"),
}
# What a value may pass through and still be the same numbers, element for element.
_CARRIERS = frozenset(("reshape", "permute", "broadcast_to", "cast"))


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters, then buffers, under all their names, in the model's order."""
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named.update(model.named_buffers(remove_duplicate=False))
    return named


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter or buffer the first name of the same tensor."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in named_tensors(model).items()
    }


def modules(model: nn.Module) -> tuple[ModuleInfo, ...]:
    """Return all modules in the model's order."""
    return tuple(
        ModuleInfo(
            name,
            type(module).__name__,
            type(module).__module__.partition(".")[0],
            dict(_counts(module)),
        )
        for name, module in model.named_modules()
    )


def _counts(module: nn.Module) -> Iterator[tuple[str, int]]:
    places = (module, getattr(module, "config", None)) if _attends(module) else (module,)
    for fact, spellings in _COUNTS.items():
        found = (getattr(p, s, None) for p in places for s in spellings if p is not None)
        number = next((n for n in found if isinstance(n, int) and n > 0), None)
        if number is not None:
            yield fact, number


def _attends(module: nn.Module) -> bool:
    """Whether a module's configuration speaks of the module itself: it owns the projections."""
    return "attention" in type(module).__name__.lower()


def parameters(
    model: nn.Module, train: Graph, forward: Graph, canonical: Mapping[str, str]
) -> dict[str, ParamInfo]:
    """Return what can be trained: every parameter with a gradient, in the model's order.

    Args:
        model: The model.
        train: Its training graph, which has the gradients.
        forward: Its evaluation graph, whose uses of a parameter say what kind it is.
        canonical: The name to use for each name of a tied tensor.
    """
    gradients = {o.role.param for o in train.outputs if isinstance(o.role, Gradient)}
    position = {n.name: i for i, n in enumerate(forward.nodes)}
    found: dict[str, ParamInfo] = {}
    for owner, module in model.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            name = canonical.get(f"{owner}.{leaf}" if owner else leaf, leaf)
            if name in found or name not in gradients:
                continue
            graph = forward if forward.input_of(Param(name)) else train
            value = graph.input_of(Param(name))
            if value is not None:
                uses = [position.get(u.name, len(position)) for u in graph.users[value.name]]
                path = name.rpartition(".")[0]
                kind = kind_of(graph, value)
                kind_name = type(model.get_submodule(path)).__name__
                found[name] = ParamInfo(
                    name, value.type, path, kind_name, kind, min(uses, default=len(position))
                )
    order = {name: i for i, (name, _) in enumerate(model.named_parameters())}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def kind_of(graph: Graph, value: Input) -> Kind:
    """Return "bias" for a vector that is only ever added to something, else "weight"."""
    if value.type.rank != 1:
        return "weight"
    return "bias" if _only_added(graph, value.name) else "weight"


def _only_added(graph: Graph, value: str) -> bool:
    users = graph.users[value]
    if not users or value in graph.output_values:
        return False
    return all(
        _only_added(graph, u.name) if u.op in _CARRIERS else _adds(u.op, u.inputs, value)
        for u in users
    )


def _adds(op: str, operands: tuple[str, ...], value: str) -> bool:
    return op == "add" and operands.count(value) == 1
