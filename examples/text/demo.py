"""Compile a text encoder twice, fine-tune it with the runtime, and compare.

    python examples/text/demo.py

Both artifacts see the same 1920 news texts once, in steps of 16; 600 other texts are classified
before and after. The process that trains knows numpy and the runtime, and no PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER / "cache"
STEPS, ROWS, EVALUATED = 120, 16, 600
ACCURACY_IN_PYTORCH = {"sparse": 0.955, "full": 0.952}


def main() -> None:
    """Prepare, compile, train, and print the table."""
    heading("Reuters-R8: news texts of eight kinds, as token numbers")
    command("examples/text/data.py", [sys.executable, FOLDER / "data.py"])
    results = {}
    for name, options in (
        ("sparse", ["--sparse-update", FOLDER / "config.yaml"]),
        ("full", []),
    ):
        heading(f"{name} update")
        artifact = CACHE / f"{name}.pock"
        arguments = ["compile", FOLDER / "model.py", *options, "--lr", "3e-4", "-o", artifact]
        command(shown(arguments), [sys.executable, "-m", "pockc.cli", *arguments])
        results[name] = trained(artifact)
    heading("Result")
    print(table(results))
    print(f"\nThe artifacts are in {CACHE}; try: pockc inspect {CACHE / 'sparse.pock'}")


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def shown(arguments: list[Any]) -> str:
    """Return a command as a user in the project's folder would type it."""
    root = FOLDER.parent.parent
    parts = (a.relative_to(root) if isinstance(a, Path) else a for a in arguments)
    return " ".join(("pockc", *map(str, parts)))


def command(text: str, arguments: list[Any]) -> None:
    """Show a command and run it; its failure is ours."""
    print(f"$ {text}", flush=True)
    done = subprocess.run([str(a) for a in arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def trained(artifact: Path) -> dict[str, Any]:
    """Train an artifact in a process of its own; return what that process measured."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--train", str(artifact)], stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = {}
    for line in process.stdout or ():
        if line.startswith("{"):
            result = json.loads(line)
        else:
            print(line, end="", flush=True)
    if process.wait():
        sys.exit(process.returncode)
    return result


def train(path: Path) -> None:
    """Fine-tune an artifact, report on the way, and print what was measured as JSON."""
    import numpy as np

    from pockc.runtime import StepReport, TrainOptions, load

    data = {k: v[: STEPS * ROWS] for k, v in np.load(CACHE / "train.npz").items()}
    held_out = {k: v[:EVALUATED] for k, v in np.load(CACHE / "test.npz").items()}
    before_bytes = resident_bytes("VmRSS")
    times: list[float] = []

    def report(step: StepReport) -> None:
        times.append(step.step_ms)
        if step.step % 20 == 0:
            pace = sorted(times)[len(times) // 2]
            print(
                f"step {step.step:3} of {STEPS}  loss {step.loss:.3f}  {pace:.0f} ms",
                flush=True,
            )

    with load(path) as artifact:
        before = artifact.evaluate(held_out)
        began = time.perf_counter()
        artifact.train(data, TrainOptions(epochs=1, schedule="linear", on_step=report))
        seconds = time.perf_counter() - began
        after = artifact.evaluate(held_out)
        peak_bytes = resident_bytes("VmHWM")
        planned_bytes = artifact.memory.total_bytes
        artifact.save(path)
    times.sort()
    result = {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "step_ms": times[len(times) // 2],
        "seconds": seconds,
        "planned_bytes": planned_bytes,
        "measured_bytes": peak_bytes - before_bytes,
    }
    print(json.dumps(result))


def resident_bytes(field: str) -> int:
    """Return a figure of this process's memory from Linux: VmRSS is now, VmHWM the peak."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the comparison, a column per way of training."""
    mib = 2**20
    columns = {
        "accuracy before": {n: f"{r['before']:.3f}" for n, r in results.items()},
        "accuracy after": {n: f"{r['after']:.3f}" for n, r in results.items()},
        "  PyTorch, same scheme": {n: f"{ACCURACY_IN_PYTORCH[n]:.3f}" for n in results},
        "time per step": {n: f"{r['step_ms']:.0f} ms" for n, r in results.items()},
        "time of 120 steps": {n: f"{r['seconds']:.0f} s" for n, r in results.items()},
        "memory planned": {
            n: f"{r['planned_bytes'] / mib:.1f} MiB" for n, r in results.items()
        },
        "memory measured": {
            n: f"{r['measured_bytes'] / mib:.1f} MiB" for n, r in results.items()
        },
    }
    lines = ["".join([" " * 26, *(f"{n:>14}" for n in results)])]
    lines += [
        "".join([f"{label:26}", *(f"{texts[n]:>14}" for n in results)])
        for label, texts in columns.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(Path(sys.argv[2]))
    else:
        main()
