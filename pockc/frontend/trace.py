"""From an exported forward pass to one flat ATen graph, with or without its gradients.

The exported graph is run node by node on fake, functionalised tensors under `make_fx`. Autograd
runs above, so that the recorded operations are those of forward and backward, without any
in-place operation. Every recorded node says which line of the user's it comes from: forward
nodes while their exported node runs; backward nodes because each autograd function created
meanwhile gets a hook that names the same line when it runs.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._functorch._aot_autograd.functional_utils import from_fun, has_data_mutation, to_fun
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.export.graph_signature import InputKind
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from pockc.errors import PockcError, Problem, UserError
from pockc.frontend import source
from pockc.frontend.composite import FROZEN, INFERENCE, REPLACED
from pockc.frontend.decompositions import fallbacks, forward_fallback
from pockc.frontend.quiet import quiet
from pockc.ir import Source

aten = torch.ops.aten
_TAG = "pockc"
Key = tuple[str, str]
ResultsFunction = Callable[..., Mapping[Key, Tensor]]


@dataclass(frozen=True, slots=True)
class Place:
    """What a placeholder of an exported graph is: a parameter, buffer, constant or input."""

    kind: str
    name: str
    value: Any


@dataclass
class Traced:
    """A flat ATen graph and what its placeholders and results are.

    Attributes:
        module: The graph. It takes the tensors of `places`, then the extras; and returns the
            results that `results` names, in that order.
        places: The distinct tensor inputs of the forward pass, tied parameters once.
        extras: Targets and constants of the loss.
        constants: The content of the places that are constants.
        results: A key for every result: ("loss", ""), ("gradient", parameter),
            ("buffer", name), ("metric", name) or ("prediction", number).
        sources: The user's lines; a node's tag is an index into it.
    """

    module: fx.GraphModule
    places: tuple[Place, ...]
    extras: tuple[Tensor, ...]
    constants: Mapping[str, Tensor]
    results: tuple[Key, ...]
    sources: tuple[Source | None, ...]

    def source_of(self, node: fx.Node) -> Source | None:
        """Return the user's line that a node comes from."""
        tag = node.meta.get("custom", {}).get(_TAG)
        return None if tag is None else self.sources[tag]


def places_of(
    program: torch.export.ExportedProgram, canonical: Mapping[str, str]
) -> tuple[Place, ...]:
    """Return what each placeholder of an exported program is, tied tensors by one name.

    Args:
        program: The exported forward pass.
        canonical: The name to use for each name of a tied parameter or buffer.
    """
    nodes = [n for n in program.graph.nodes if n.op == "placeholder"]
    places = []
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        fake = node.meta.get("val")
        target = str(spec.target)
        if spec.kind is InputKind.PARAMETER:
            places.append(Place("parameter", canonical.get(target, target), fake))
        elif spec.kind is InputKind.BUFFER:
            places.append(Place("buffer", canonical.get(target, target), fake))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            places.append(Place("constant", target, fake))
        else:
            places.append(Place("input", node.name, fake))
    return tuple(places)


@dataclass
class Request:
    """What to trace.

    Attributes:
        program: The exported forward pass.
        loss: Takes the model's outputs and the extras, returns results by key.
        canonical: The name to use for each name of a tied tensor.
        loss_source: The line to name for the nodes of a loss that is ours.
        extras: Example targets and constants, of which only shape and type count.
        training: Whether it is the step: dropout is on, buffers may be written, and gradients
            of ("loss", "") for all floating parameters are results.
        update_batch_norm: Whether batch norm uses the batch's statistics in training.
    """

    program: torch.export.ExportedProgram
    loss: ResultsFunction
    canonical: Mapping[str, str] = field(default_factory=dict)
    loss_source: Source | None = None
    extras: tuple[Tensor, ...] = ()
    training: bool = False
    update_batch_norm: bool = False


def trace(request: Request) -> Traced:
    """Return the flat graph of a request."""
    return _Tracer(request).trace()


class _Tracer:
    """Holds what the traced function notes while it runs: lines, and the names of results."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sources: list[Source | None] = [None]
        self.seen: set[Any] = set()
        self.results: list[Key] = []
        self.graph = request.program.graph_module
        self.all_places = places_of(request.program, request.canonical)
        distinct = {(p.kind, p.name): p for p in self.all_places if isinstance(p.value, Tensor)}
        self.places = tuple(distinct.values())

    def trace(self) -> Traced:
        mode = _fake_mode(self.places)
        with mode, quiet():
            # Outside of the trace, so that it does not record it.
            fakes = [cast(Tensor, p.value).detach() for p in self.places]
            fakes += [mode.from_tensor(t, static_shapes=True) for t in self.request.extras]
            # Without oneDNN, recurrent layers are traced as what they compute.
            with fx_traceback.preserve_node_meta(), torch.backends.mkldnn.flags(enabled=False):
                # make_fx counts the arguments of a bound method wrongly.
                record = make_fx(lambda tensors: self._run(tensors), dict(fallbacks()))  # noqa: PLW0108
                module = record(fakes)
        return Traced(
            module,
            self.places,
            self.request.extras,
            self.request.program.constants,
            tuple(self.results),
            tuple(self.sources),
        )

    def _run(self, tensors: list[Tensor]) -> list[Tensor]:
        self.sources, self.seen = [None], set()
        with FunctionalTensorMode():
            inner = [to_fun(t) for t in tensors]
            given, extras = inner[: len(self.places)], inner[len(self.places) :]
            leaves = {
                p.name: t
                for p, t in zip(self.places, given, strict=True)
                if p.kind == "parameter" and t.dtype.is_floating_point
            }
            for leaf in leaves.values():
                leaf.requires_grad_(self.request.training)
            with torch.set_grad_enabled(self.request.training):
                outputs = self._forward(given)
                found = self._loss(outputs, extras)
            if self.request.training:
                found.update(self._gradients(found[("loss", "")], leaves))
                found.update(self._written(given))
            self.results = list(found)
            return [cast(Tensor, from_fun(t)) for t in found.values()]

    def _forward(self, tensors: list[Any]) -> Any:  # noqa: ANN401
        table = {(p.kind, p.name): t for p, t in zip(self.places, tensors, strict=True)}
        arguments = [table.get((p.kind, p.name), p.value) for p in self.all_places]
        flat = self._interpret(self.graph, arguments)
        return torch.utils._pytree.tree_unflatten(flat, self.request.program.call_spec.out_spec)

    def _loss(self, outputs: Any, extras: Sequence[Tensor]) -> dict[Key, Tensor]:  # noqa: ANN401
        try:
            with self._lines_of_loss():
                return dict(self.request.loss(outputs, *extras))
        except PockcError:
            raise
        except Exception as e:
            line = source.of_traceback(e)
            raise UserError(
                Problem(
                    "loss-function",
                    f"the loss function raised {source.reason(e)}",
                    source=None if line is None else str(line),
                    fix="it takes the model's outputs, then the targets, and returns a scalar",
                )
            ) from e

    def _gradients(self, loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[Key, Tensor]:
        if not leaves or not loss.requires_grad:
            return {}
        found: Sequence[Any] = torch.autograd.grad(
            loss, list(leaves.values()), allow_unused=True
        )
        pairs = zip(leaves, found, strict=True)
        return {("gradient", name): g for name, g in pairs if g is not None}

    def _written(self, tensors: list[Any]) -> dict[Key, Tensor]:
        """Return the new values of buffers that the forward pass writes."""
        return {
            ("buffer", place.name): tensor
            for place, tensor in zip(self.places, tensors, strict=True)
            if place.kind == "buffer" and has_data_mutation(tensor)
        }

    @contextlib.contextmanager
    def _lines_of_loss(self) -> Iterator[None]:
        """Name the running line of a user's loss, or the line given for one of ours."""
        if self.request.loss_source is not None:
            tag = self._enter(self.request.loss_source)
            with _OnEachCall(lambda: None, lambda out: self._hook(out, tag)):
                yield
            return
        last = 0

        def before() -> None:
            nonlocal last
            last = self._enter(source.of_running_code())

        with _OnEachCall(before, lambda out: self._hook(out, last)):
            yield

    def _interpret(self, graph: fx.GraphModule, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        values: dict[fx.Node, Any] = {}
        feed = iter(arguments)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(feed)
            elif node.op == "get_attr":
                values[node] = _attribute(graph, str(node.target))
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], lambda n: values[n])
            else:
                values[node] = self._call(node, values)
        return None

    def _call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:  # noqa: ANN401
        args = fx.node.map_arg(node.args, lambda n: values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
        if node.target is operator.getitem:
            return operator.getitem(*args)
        if region := _region(node, args):
            with region[0]:
                return self._interpret(region[1], region[2])
        line = source.of_export_node(node.meta)
        tag = self._enter(line)
        target = self._target(node.target)
        try:
            out = target(*args, **kwargs)
        except Exception as e:
            raise UserError(
                Problem(
                    "unsupported-op",
                    f"{node.target} cannot be traced: {source.reason(e)}",
                    at=f"%{node.name} = {node.target}",
                    source=None if line is None else str(line),
                    fix="write it with supported operations",
                )
            ) from e
        self._hook(out, tag)
        return out

    def _target(self, target: Any) -> Callable[..., Any]:  # noqa: ANN401
        """Return what runs instead of an operation.

        A program that was exported in training mode has its dropout and batch statistics fixed
        to that; elsewhere the flags say already what is asked for here.
        """
        if not self.request.training and target in INFERENCE:
            return INFERENCE[target]
        if not self.request.update_batch_norm and target in FROZEN:
            return FROZEN[target]
        chosen = REPLACED.get(target) or forward_fallback(target)
        return chosen or cast(Callable[..., Any], target)

    def _enter(self, line: Source | None) -> int:
        """Name the line for what is recorded from now on; return its tag."""
        if self.sources[-1] != line:
            self.sources.append(line)
        tag = len(self.sources) - 1
        _set_tag(tag)
        return tag

    def _hook(self, out: Any, tag: int) -> None:  # noqa: ANN401
        """Make the autograd functions created just now name their line when they run."""
        stack: list[Any] = [
            t.grad_fn
            for t in torch.utils._pytree.tree_leaves(out)
            if isinstance(t, Tensor) and t.grad_fn is not None
        ]
        while stack:
            function = stack.pop()
            if function is None or function in self.seen:
                continue
            self.seen.add(function)
            function.register_prehook(lambda _, tag=tag: _set_tag(tag))
            stack.extend(f for f, _ in function.next_functions)


class _OnEachCall(TorchFunctionMode):
    """Calls back before and after every torch function."""

    def __init__(self, before: Callable[[], None], after: Callable[[Any], None]) -> None:
        super().__init__()
        self._before = before
        self._after = after

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self._before()
        out = func(*args, **(kwargs or {}))
        self._after(out)
        return out


def _set_tag(tag: int) -> None:
    fx_traceback.current_meta["custom"] = {_TAG: tag}


def _fake_mode(places: Sequence[Place]) -> FakeTensorMode:
    found = next((p.value.fake_mode for p in places if isinstance(p.value, FakeTensor)), None)
    return found or FakeTensorMode(allow_non_fake_inputs=True)


def _attribute(module: fx.GraphModule, name: str) -> Any:  # noqa: ANN401
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _region(
    node: fx.Node, args: tuple[Any, ...]
) -> tuple[contextlib.AbstractContextManager[Any], fx.GraphModule, tuple[Any, ...]] | None:
    """Return context, body and operands of a region that is run as it stands, else None."""
    name = getattr(node.target, "__name__", "")
    if name == "wrap_with_set_grad_enabled":
        enabled = bool(args[0]) and torch.is_grad_enabled()
        return torch.set_grad_enabled(enabled), args[1], args[2:]
    if name == "wrap_with_autocast":
        device, dtype, enabled, cached = args[:4]
        context = torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cached)
        return context, args[4], args[5:]
    if name == "tag_activation_checkpoint":
        return contextlib.nullcontext(), args[0], args[1:]
    return None
