"""Schemes by name, from the structure of a model and not from what its parts are called.

`full`, `head`, `bias` and `last:N` say what they do. What papers train, `pockengine` among it,
is in `published.py`.
"""

from __future__ import annotations

from pockc.errors import Problem, UserError
from pockc.scheme.blocks import Structure
from pockc.scheme.facts import Parameters
from pockc.scheme.kinds import biases_of


def preset(name: str, parameters: Parameters, structure: Structure) -> list[str]:
    """Return the parameters that a preset trains, in the model's order.

    Raises:
        UserError: [preset] The model has not the structure that the preset speaks of.
    """
    kind, _, number = name.partition(":")
    if kind == "last":
        chosen = _last(int(number), structure)
    else:
        chosen = _PRESETS[kind](parameters, structure)
    if not chosen:
        raise UserError(
            Problem(
                "preset",
                f"preset '{name}' finds nothing to train in this model",
                fix="write rules under `update`, or use another preset",
            )
        )
    return [p for p in parameters if p in chosen]


def _full(parameters: Parameters, structure: Structure) -> set[str]:  # noqa: ARG001
    return set(parameters)


def _head(parameters: Parameters, structure: Structure) -> set[str]:  # noqa: ARG001
    return set(structure.head)


def _bias(parameters: Parameters, structure: Structure) -> set[str]:
    """Biases everywhere, and the head (as TinyTL, Cai et al., NeurIPS 2020, trains them)."""
    return biases_of(parameters, parameters) | set(structure.head)


def _last(count: int, structure: Structure) -> set[str]:
    found = len(structure.blocks)
    if count > found:
        names = ", ".join(structure.block_names[:3])
        raise UserError(
            Problem(
                "preset",
                f"preset 'last:{count}' needs {count} blocks, the model has {found}",
                at=f"blocks {names}, ..." if names else None,
                fix=f"use last:1 to last:{found}" if found else "use head, bias or full",
            )
        )
    return {p for block in structure.blocks[-count:] for p in block} | set(structure.head)


_PRESETS = {"full": _full, "head": _head, "bias": _bias}
