"""By hand: a model of more than 2 GiB, the most that a protobuf file holds, through ONNX.

    python -m tests.scale.large_onnx                  # 2.5 GiB frozen, the last layer trained
    python -m tests.scale.large_onnx --preset full    # all of it is state

Compiles with the backend onnx, trains, exports a model for inference, and prints of each
command its time, its peak memory, and what lies on disk. Needs 4 times the model on disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTH = 8192
LAYER_BYTES = 4 * WIDTH * WIDTH
ROWS = 4

MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
layers = []
for _ in range({layers}):
    layer = nn.Linear({width}, {width}, device="meta").to_empty(device="cpu")
    nn.init.uniform_(layer.weight, -.01, .01)
    nn.init.zeros_(layer.bias)
    layers += [layer, nn.ReLU()]
model = nn.Sequential()
model.body = nn.Sequential(*layers)
model.head = nn.Linear({width}, 10)
example_inputs = (torch.zeros({rows}, {width}),)
"""


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(folder: Path, *words: str) -> None:
    """Run a command of pockc and print what it took."""
    begin = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "pockc.cli", *words], cwd=folder)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{words[0]} ended with status {os.waitstatus_to_exitcode(status)}")
    seconds, peak = time.perf_counter() - begin, used.ru_maxrss / 2**20
    say(f"== {words[0]}: {seconds:.1f} s, at most {peak:.2f} GiB resident")


def show_files(folder: Path) -> None:
    """Print the files that take a MiB or more."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_size >= 2**20:
            say(f"   {file.relative_to(folder)}: {file.stat().st_size / 2**20:.0f} MiB")


def main() -> None:
    """Run all commands in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10, help="of 256 MiB each")
    parser.add_argument("--preset", default="head")
    parser.add_argument("--backend", default="onnx")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pockc-large-") as name:
        folder = Path(name)
        text = MODEL.format(layers=asked.layers, width=WIDTH, rows=ROWS)
        (folder / "model.py").write_text(text)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2 * ROWS, WIDTH)).astype(np.float32)
        np.savez(folder / "data.npz", input=x, target=rng.integers(0, 10, 2 * ROWS))
        say(f"{asked.layers * LAYER_BYTES / 2**30:.2f} GiB of weights, {asked.preset}")
        run(folder, "compile", "model.py", "--backend", asked.backend, "--preset", asked.preset,
            "--optimizer", "sgd", "-o", "m.pock")  # fmt: skip
        run(folder, "train", "m.pock", "--data", "data.npz", "--epochs", "1")
        run(folder, "export", "m.pock", "--to", "m.onnx")
        show_files(folder)


if __name__ == "__main__":
    main()
