"""A small net with blocks as a model file, and rows for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MODEL = """
import torch
from tests import nets
model = nets.make("resnet")
*inputs, _ = nets.batches("resnet", 4, 1)[0]
example_inputs = tuple(inputs)
"""


def rows(count: int = 40) -> dict[str, np.ndarray]:
    """Return images and labels for it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 3, 24, 24)).astype(np.float32)
    return {"x": x, "target": rng.integers(0, 5, count)}


def write_model(folder: Path) -> Path:
    """Write model.py and data.npz; return the folder."""
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    np.savez(folder / "data.npz", **rows())
    return folder
