"""The forward pass, by torch.export (not strict, static shapes).

What goes wrong here goes wrong in the user's Python, so every failure becomes a [capture] or
[dynamic-shape] error that shows the user's line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pockc.errors import Problem, UserError
from pockc.frontend import source
from pockc.frontend.composite import acts_in_training
from pockc.frontend.quiet import quiet

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_NUMBERS = (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default)
_DATA_DEPENDENT = ("data-dependent", "data dependent", "GuardOnDataDependent")


@dataclass(frozen=True)
class Forward:
    """An exported forward pass.

    Attributes:
        program: What torch.export made.
        asks_for_mode: Whether a module looked at `self.training` for which that makes a
            difference. If none did, training and evaluation are one program.
    """

    program: torch.export.ExportedProgram
    asks_for_mode: bool

    def is_same(self, other: Forward) -> bool:
        """Whether another program of the same model and shapes does the very same."""
        a, b = self.program, other.program
        if a is b:
            return True
        constants = a.constants.keys() == b.constants.keys() and all(
            torch.equal(c, b.constants[name])
            for name, c in a.constants.items()
            if isinstance(c, Tensor)
        )
        return constants and a.graph_module.code == b.graph_module.code

    @property
    def acts_in_training(self) -> bool:
        """Whether dropout or batch statistics are on in the program itself."""
        return any(
            acts_in_training(node.target, node.args) for node in self.program.graph.nodes
        )


def export_forward(
    model: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: Mapping[str, Tensor],
    *,
    training: bool,
    update_batch_norm: bool,
) -> Forward:
    """Return the forward pass as torch.export traces it.

    Args:
        model: The user's model; its mode is as before when this returns.
        args: Positional arguments of `forward`.
        kwargs: Named arguments of `forward`.
        training: Whether dropout and whatever else asks for `self.training` is on.
        update_batch_norm: Whether batch norm in training uses and updates batch statistics;
            otherwise it uses its running ones.

    Raises:
        UserError: [capture] torch cannot trace it; [dynamic-shape] a shape depends on data.
    """
    with _mode(model, training=training, update_batch_norm=update_batch_norm):
        try:
            with (
                _readers_of_training() as readers,
                quiet(),
                torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            ):
                program = torch.export.export(model, args, dict(kwargs), strict=False)
        except Exception as e:
            raise UserError(_export_problem(e)) from e
    if problems := tuple(_data_dependent(program)):
        raise UserError(*problems)
    own = set(model.modules()) & readers
    asks = any(not _indifferent(m, update_batch_norm=update_batch_norm) for m in own)
    return Forward(program, asks)


def _indifferent(module: nn.Module, *, update_batch_norm: bool) -> bool:
    """Whether a module does the same in training as in evaluation, as we set it up."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p == 0
    return isinstance(module, _BATCH_NORMS) and not update_batch_norm


@contextlib.contextmanager
def _readers_of_training() -> Iterator[set[nn.Module]]:
    """Collect the modules whose attribute `training` is looked at."""
    readers: set[nn.Module] = set()

    def look(module: nn.Module) -> object:
        if "training" not in module.__dict__:
            raise AttributeError("training")
        readers.add(module)
        return module.__dict__["training"]

    def change(module: nn.Module, value: object) -> None:
        module.__dict__["training"] = value

    # A property of the class goes before what instances hold under the same name.
    type.__setattr__(nn.Module, "training", property(look, change))
    try:
        yield readers
    finally:
        type.__delattr__(nn.Module, "training")


@contextlib.contextmanager
def _mode(model: nn.Module, *, training: bool, update_batch_norm: bool) -> Iterator[None]:
    before = [(m, m.training) for m in model.modules()]
    try:
        # Flags are set one by one: an exported program read from a file refuses train().
        for module, _ in before:
            frozen = isinstance(module, _BATCH_NORMS) and not update_batch_norm
            module.training = training and not frozen
        yield
    finally:
        for module, flag in before:
            module.training = flag


def _export_problem(error: Exception) -> Problem:
    line = _show(source.of_traceback(error))
    said = f"{type(error).__name__} {error}"
    if any(mark in said for mark in _DATA_DEPENDENT):
        return Problem(
            "capture",
            "the model's control flow depends on the values of a tensor, and a compiled step "
            "runs the same operations for every batch",
            source=line,
            fix="express the choice with torch.where or a mask, or decide it outside forward",
        )
    return Problem(
        "capture",
        f"torch.export cannot trace the model: {source.reason(error)}",
        source=line,
        fix="check that model(*example_inputs) runs; torch's own error is above",
    )


def _show(line: object) -> str | None:
    return None if line is None else str(line)


def _data_dependent(program: torch.export.ExportedProgram) -> Iterator[Problem]:
    """Yield the first shape or number that depends on data; what follows inherits it."""
    for node in program.graph.nodes:
        if node.op == "output":
            continue
        where = {"at": f"%{node.name} = {node.target}"}
        line = _show(source.of_export_node(node.meta))
        if node.target in _NUMBERS:
            yield Problem(
                "capture",
                "the value of a tensor becomes a number of Python's, which a compiled step "
                "cannot look at",
                source=line,
                fix="keep it a tensor: leave out item(), int() or float()",
                **where,
            )
            return
        tensors = [t for t in _leaves(node.meta.get("val")) if isinstance(t, Tensor)]
        varying = [t for t in tensors if any(isinstance(n, torch.SymInt) for n in t.shape)]
        if varying:
            shape = ", ".join(str(n) for n in varying[0].shape)
            yield Problem(
                "dynamic-shape",
                f"the shape of %{node.name} depends on data: [{shape}], and every shape must "
                "be fixed",
                source=line,
                fix="keep all elements and use a mask (torch.where) instead of selecting some",
                **where,
            )
            return


def _leaves(value: object) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)
