"""Backends: each turns finished graphs into the files of an artifact.

A backend is found by its name; nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pockc.backends.base import Backend
from pockc.errors import Problem, UserError

NAMES = ("tvm", "onnx", "ort-training")


def get(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        UserError: [no-backend] The name is none of `NAMES`.
    """
    if name not in NAMES:
        raise UserError(
            Problem(
                "no-backend",
                f"there is no backend '{name}'",
                fix=f"choose from: {', '.join(NAMES)}",
            )
        )
    return cast("Backend", import_module(f"pockc.backends.{name.replace('-', '_')}").BACKEND)
