"""The forward pass, by torch.export (not strict, static shapes).

What goes wrong here goes wrong in the user's Python, so every failure becomes a [capture] or
[dynamic-shape] error that shows the user's line.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pockc.errors import Problem, UserError
from pockc.frontend import source

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_DATA_DEPENDENT = ("data-dependent", "data dependent", "GuardOnDataDependent")


def export_forward(
    model: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: Mapping[str, Tensor],
    *,
    training: bool,
    update_batch_norm: bool,
) -> torch.export.ExportedProgram:
    """Return the forward pass as torch.export traces it.

    Args:
        model: The user's model; its mode is as before when this returns.
        args: Positional arguments of `forward`.
        kwargs: Named arguments of `forward`.
        training: Whether dropout and whatever else asks for `self.training` is on.
        update_batch_norm: With `training`: whether batch norm uses and updates batch
            statistics; otherwise it uses its running ones.

    Raises:
        UserError: [capture] torch cannot trace it; [dynamic-shape] a shape depends on data.
    """
    with _mode(model, training=training, update_batch_norm=update_batch_norm):
        try:
            with (
                warnings.catch_warnings(),
                torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            ):
                warnings.simplefilter("ignore")
                program = torch.export.export(model, args, dict(kwargs), strict=False)
        except Exception as e:
            raise UserError(_export_problem(e)) from e
    if problems := tuple(_dynamic_shapes(program)):
        raise UserError(*problems)
    return program


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
    text = str(error)
    line = source.of_traceback(error)
    if any(mark in text or mark in type(error).__name__ for mark in _DATA_DEPENDENT):
        return Problem(
            "capture",
            "the model's control flow depends on the values of a tensor, and a compiled step "
            "runs the same operations for every batch",
            source=_show(line),
            fix="express the choice with torch.where or a mask, or decide it outside forward",
        )
    reason = next((t.strip() for t in text.splitlines() if t.strip()), "")
    return Problem(
        "capture",
        f"torch.export cannot trace the model: {type(error).__name__}: {reason}",
        source=_show(line),
        fix="check that model(*example_inputs) runs; torch's own error is above",
    )


def _show(line: object) -> str | None:
    return None if line is None else str(line)


def _dynamic_shapes(program: torch.export.ExportedProgram) -> Iterator[Problem]:
    for node in program.graph.nodes:
        value = node.meta.get("val")
        tensors = [t for t in _leaves(value) if isinstance(t, Tensor)]
        if node.op == "output" or not any(
            isinstance(n, torch.SymInt) for t in tensors for n in t.shape
        ):
            continue
        shape = ", ".join(str(n) for n in tensors[0].shape)
        yield Problem(
            "dynamic-shape",
            f"the shape of {node.name} depends on data: [{shape}]; every shape must be fixed",
            at=f"{node.name} = {node.target}",
            source=_show(source.of_export_node(node.meta)),
            fix="use a mask of fixed shape (torch.where) instead of selecting a varying number "
            "of elements, and export without dynamic_shapes",
        )
        return  # what follows only inherits it


def _leaves(value: object) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)
