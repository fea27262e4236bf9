"""The ops. One file each, found by its name; adding one touches nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from pockc.ops.base import Emit, OpDef, OpKind, Sample, sample

_NOT_OPS = ("base", "windows")


def _discover() -> Mapping[str, OpDef]:
    table: dict[str, OpDef] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if module.name in _NOT_OPS:
            continue
        op: OpDef = importlib.import_module(f"{__name__}.{module.name}").OP
        if op.name != module.name.rstrip("_"):
            raise ImportError(f"pockc/ops/{module.name}.py defines the op '{op.name}'")
        table[op.name] = op
    return MappingProxyType(table)


OPS: Mapping[str, OpDef] = _discover()


def get(name: str) -> OpDef:
    """Return the op of a name.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    if name not in OPS:
        near = get_close_matches(name, OPS)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"there is no op '{name}'{hint}")
    return OPS[name]


__all__ = ["OPS", "Emit", "OpDef", "OpKind", "Sample", "get", "sample"]
