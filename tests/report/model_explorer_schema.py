"""Model Explorer's own classes of its JSON, without the server that its package brings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from types import ModuleType

import pytest

PACKAGE = "ai-edge-model-explorer"


def graph_builder() -> ModuleType:
    """Return the module that defines the format; skip the test without the package."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    path = found.locate_file("model_explorer/graph_builder.py")
    spec = importlib.util.spec_from_file_location("model_explorer_graph_builder", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module
