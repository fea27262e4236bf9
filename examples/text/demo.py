"""The whole path: compile a sparse and a full update, fine-tune with both, compare.

`make demo` runs it. The model is compiled in one process; another one, which has neither
PyTorch nor TVM loaded, trains, so that the memory it measures is the artifact's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent
SCHEMES = {"sparse": "config.yaml", "full": "full.yaml"}
MIB = 2.0**20


def run(*command: str, capture: bool = False) -> str:
    """Run Python on something in this folder; stop the demo if that fails."""
    output = subprocess.PIPE if capture else None
    done = subprocess.run(
        [sys.executable, *command], cwd=FOLDER, stdout=output, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def one_scheme(name: str, config: str) -> dict[str, Any]:
    """Compile and fine-tune with one configuration; return the figures."""
    artifact = f"cache/{name}.pock"
    print(f"\n== {name} update: compile model.py with {config}", flush=True)
    started = time.monotonic()
    run("-m", "pockc.cli", "compile", "model.py", "--sparse-update", config, "-o", artifact)
    compiled = time.monotonic() - started
    print(f"\n== {name} update: fine-tune with the compiled artifact", flush=True)
    figures = json.loads(run("finetune.py", artifact, capture=True))
    return {**figures, "compile_s": compiled}


def export(name: str) -> None:
    """Take the tuned weights home and show that the original module loads them."""
    from model import make_model
    from torch import from_numpy

    path = FOLDER / "cache" / f"{name}.safetensors"
    run("-m", "pockc.cli", "export", f"cache/{name}.pock", "--to", str(path))
    state = {key: from_numpy(value) for key, value in load_file(path).items()}
    make_model().load_state_dict(state, strict=True)
    print(f"the original PyTorch module loads {path.relative_to(FOLDER)} with strict=True")


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""

    def mib(count: float | None) -> str:
        return "-" if count is None else f"{count / MIB:.1f} MiB"

    rows = {
        "accuracy before": lambda r: f"{r['before']:.3f}",
        "accuracy after": lambda r: f"{r['after']:.3f}",
        "time of a step": lambda r: f"{r['step_ms']:.0f} ms",
        "private memory": lambda r: mib(r["planned_bytes"]),
        "  measured": lambda r: mib(r["measured_bytes"]),
        "mapped weights": lambda r: mib(r["frozen_bytes"]),
        "peak, with mapped": lambda r: mib(r["peak_bytes"]),
        "compile time": lambda r: f"{r['compile_s']:.0f} s",
    }
    print("\nMiniLM-L6 on Reuters-R8, 120 steps of 16 texts, 600 test texts\n")
    print(f"{'':18}" + "".join(f"{name:>14}" for name in results))
    for label, value in rows.items():
        print(f"{label:18}" + "".join(f"{value(r):>14}" for r in results.values()))


def main() -> None:
    """Run everything."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    print("== data: Reuters-R8 as token numbers", flush=True)
    data.prepare()
    results = {name: one_scheme(name, config) for name, config in SCHEMES.items()}
    print("\n== take the weights home", flush=True)
    export("sparse")
    show(results)


if __name__ == "__main__":
    main()
