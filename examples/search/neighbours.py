"""Modules of the other examples, which all have a `model` and a `data`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent


def load(folder: str, name: str) -> ModuleType:
    """Return a module of another example."""
    path = str(EXAMPLES / folder)
    others = {n: sys.modules.pop(n) for n in ("model", "data") if n in sys.modules}
    sys.path.insert(0, path)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(path)
        for taken in ("model", "data"):
            sys.modules.pop(taken, None)
        sys.modules.update(others)
