"""Write BasicMotions, 40 + 40 recordings of four activities, to cache/{train,test}.npz.

The recordings (Bagnall et al., UEA archive, 2018) lie inside the package `aeon`.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from model import class_names

CACHE = Path(__file__).parent / "cache"
FOLDER = "aeon/datasets/data/BasicMotions"


def read(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return readings f32 (40, 6, 100) and class numbers of "TRAIN" or "TEST".

    Raises:
        FileNotFoundError: The package is missing.
    """
    try:
        package = importlib.metadata.distribution("aeon")
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError("pip install --no-deps aeon==1.6.0") from error
    path = Path(str(package.locate_file(f"{FOLDER}/BasicMotions_{part}.ts")))
    lines = path.read_text("utf-8").split("@data\n", 1)[1].split("\n")
    # One recording a line: "a,b,...:a,b,...:label", a channel between two colons.
    rows = [line.rsplit(":", 1) for line in lines if line]
    readings = [[c.split(",") for c in channels.split(":")] for channels, _ in rows]
    target = [class_names.index(label.strip().lower()) for _, label in rows]
    return np.array(readings, np.float32), np.array(target)


def prepare() -> Path:
    """Write both files unless they are there; return their folder."""
    CACHE.mkdir(exist_ok=True)
    train, _ = read("TRAIN")
    mean, deviation = train.mean((0, 2), keepdims=True), train.std((0, 2), keepdims=True)
    for part in ("train", "test"):
        path = CACHE / f"{part}.npz"
        if not path.exists():
            readings, target = read(part.upper())
            np.savez(path, readings=(readings - mean) / deviation, target=target)
    return CACHE


if __name__ == "__main__":
    print(prepare())
