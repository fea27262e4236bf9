"""Write cache/{text,digits}-{pool,train,held_out,test}.npz: few rows to learn from.

`train` is a part of `pool`. The search sees `train` and `held_out`, nothing else; schemes
are compared on `test`. Texts are those of the text example, their first 32 tokens. The digits
(Alpaydin and Kaynak, 1998, CC BY 4.0) are 1797 pictures of 8 x 8, which lie in the package
`scikit-learn`; they are enlarged to 64 x 64.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from neighbours import load

CACHE = Path(__file__).parent / "cache"
LENGTH = 32
Arrays = dict[str, np.ndarray]


def texts(part: str) -> Arrays:
    """Return Reuters-R8 as token numbers."""
    source = load("text", "data")
    found, target = source.read(part)
    # Mixed once and for all: the file's order is by date.
    order = np.random.default_rng(0).permutation(len(found))
    ids, mask = source.encode([found[i] for i in order])
    cut = {"input_ids": ids[:, :LENGTH], "attention_mask": mask[:, :LENGTH]}
    return {**cut, "target": target[order]}


def digits() -> Arrays:
    """Return pictures f32 (1797, 1, 64, 64) from 0 to 1.

    Raises:
        FileNotFoundError: The package is missing.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install --no-deps scikit-learn==1.9.1")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    small = rows[:, :64].reshape(-1, 8, 8) * (255 / 16)
    return {"image": load("image", "data").enlarge(small), "target": rows[:, 64].astype(int)}


def write(task: str, part: str, data: Arrays, rows: slice) -> None:
    """Write some rows of a task's data."""
    np.savez(CACHE / f"{task}-{part}.npz", **{k: v[rows] for k, v in data.items()})


def prepare() -> Path:
    """Write all files unless they are there; return their folder."""
    CACHE.mkdir(exist_ok=True)
    if not (CACHE / "text-test.npz").exists():
        data = texts("train")
        write("text", "pool", data, slice(0, 2000))
        write("text", "train", data, slice(0, 320))
        write("text", "held_out", data, slice(2000, 2500))
        write("text", "test", texts("test"), slice(None))
    if not (CACHE / "digits-test.npz").exists():
        data = digits()
        write("digits", "pool", data, slice(0, 800))
        write("digits", "train", data, slice(0, 480))
        write("digits", "held_out", data, slice(800, 1300))
        write("digits", "test", data, slice(1300, None))
    return CACHE


if __name__ == "__main__":
    print(prepare())
