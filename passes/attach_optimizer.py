"""Turn gradients into new values of what is trained, and of what the optimizer keeps.

The optimizer comes as a recipe: a small graph, traced from a pure function for one tensor type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pockc.errors import InternalError, Problem
from pockc.ir import (
    Batch,
    DType,
    Gradient,
    Graph,
    Input,
    InputRole,
    OptState,
    Output,
    Param,
    Scalar,
    StateUpdate,
    TensorType,
    Update,
)
from pockc.ir.verify import Invariant, update_types
from pockc.passes.base import log
from pockc.passes.rewriting import Rewriter, inline
from pockc.passes.selecting import Selection, emit_selection


@dataclass(frozen=True, slots=True)
class Attachment:
    """A recipe and the parameter that it updates.

    Attributes:
        param: Its qualified name.
        graph: Inputs `Param("p")`, `Batch("grad")`, `OptState(slot, "p")`, and the scalars lr
            and step; outputs `Update("p")` and `StateUpdate(slot, "p")`. Its types are those of
            what is trained: of the selected channels if only those are.
        lr_scale: What the learning rate is multiplied with.
        selection: The channels that are trained; None for all.
    """

    param: str
    graph: Graph
    lr_scale: float = 1.0
    selection: Selection | None = None


@dataclass(frozen=True, slots=True)
class AttachOptimizer:
    """Replace each gradient by the parameter's new value, as its recipe says.

        output gradient "w" %g        %d = mul(%lr, %g)
                                ->    %w2 = sub(%w, %d)
                                      output update "w" %w2

    Of a parameter that is trained in part, the selected channels are taken, updated, and put
    back; what the optimizer keeps has the size of the selection.
    """

    attachments: tuple[Attachment, ...]
    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (update_types,)

    def __repr__(self) -> str:
        """Name the parameters; the recipes would fill pages."""
        return f"AttachOptimizer(attachments of {', '.join(r.param for r in self.attachments)})"

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with updates in the place of gradients.

        Raises:
            InternalError: [no-recipe] for each gradient without one.
        """
        gradients = {
            o.role.param: o.value for o in graph.outputs if isinstance(o.role, Gradient)
        }
        if not gradients:
            return graph
        recipes = {r.param: r for r in self.attachments}
        if missing := [p for p in gradients if p not in recipes]:
            raise InternalError(
                *(Problem("no-recipe", f"the gradient of '{p}' has no recipe") for p in missing)
            )
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            rewriter.keep(node)
        rates = _Rates(rewriter)
        outputs = [o for o in graph.outputs if not isinstance(o.role, Gradient)]
        for param, gradient in gradients.items():
            outputs += _attach(rewriter, recipes[param], gradient, rates)
            log.debug("attach_optimizer: update of %s from %%%s", param, gradient)
        return rewriter.finish(outputs)


def _attach(
    rewriter: Rewriter, recipe: Attachment, gradient: str, rates: _Rates
) -> Iterator[Output]:
    """Inline one recipe; return the outputs that it gives."""
    whole = rewriter.input_of(Param(recipe.param))
    if whole is None:
        raise InternalError(Problem("no-input", f"there is no parameter '{recipe.param}'"))
    part = whole
    if recipe.selection is not None:
        part = emit_selection(rewriter, whole, recipe.selection)
    given: dict[InputRole, str] = {Param("p"): part, Batch("grad"): gradient}
    operands = {
        i.name: _operand(rewriter, recipe, i, given, rates) for i in recipe.graph.inputs
    }
    names = inline(rewriter, recipe.graph, operands)
    for output in recipe.graph.outputs:
        value = names[output.value]
        match output.role:
            case Update():
                yield Output(_whole(rewriter, recipe, whole, value), Update(recipe.param))
            case StateUpdate(slot):
                yield Output(value, StateUpdate(slot, recipe.param))
            case role:
                raise InternalError(Problem("recipe-output", f"a recipe cannot give {role}"))


def _operand(
    rewriter: Rewriter,
    recipe: Attachment,
    needed: Input,
    given: Mapping[InputRole, str],
    rates: _Rates,
) -> str:
    """Return the value that an input of a recipe reads."""
    match needed.role:
        case OptState(slot):
            state = OptState(slot, recipe.param)
            return rewriter.add_input(Input(needed.name, needed.type, state))
        case Scalar("lr"):
            return rates.lr(recipe.lr_scale, needed.type)
        case Scalar():
            return rates.scalar(needed.role, needed.type)
        case role if role in given:
            return given[role]
        case role:
            raise InternalError(Problem("recipe-input", f"a recipe cannot read {role}"))


def _whole(rewriter: Rewriter, recipe: Attachment, whole: str, value: str) -> str:
    """Return a parameter's new value, in which the selected channels are new."""
    if recipe.selection is None:
        return value
    axis, indices = recipe.selection
    return rewriter.emit("put", whole, value, axis=axis, indices=indices)


class _Rates:
    """The scalars of a graph: each multiple of lr is computed once."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._made: dict[tuple[float, DType], str] = {}

    def lr(self, scale: float, tensor: TensorType) -> str:
        key = (scale, tensor.dtype)
        if key not in self._made:
            value = self.scalar(Scalar("lr"), tensor)
            if scale != 1.0:
                factor = self._rewriter.scalar(scale, tensor.dtype)
                value = self._rewriter.emit("mul", value, factor, name="lr_scaled")
            self._made[key] = value
        return self._made[key]

    def scalar(self, role: Scalar, tensor: TensorType) -> str:
        """Return a scalar input, which is added if the graph has none of that role."""
        value = self._rewriter.input_of(role)
        if value is None:
            return self._rewriter.add_input(Input(role.name, tensor, role))
        if self._rewriter.type_of(value) == tensor:
            return value
        return self._rewriter.emit("cast", value, dtype=tensor.dtype)
