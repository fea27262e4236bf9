"""Search at three budgets, and compare what is found with schemes made by hand.

    python compare.py text        # MiniLM-L6 on a few texts of Reuters-R8
    python compare.py digits      # EfficientNet-Lite0 on a few digits

Everything is kept in cache/; what is there is not made again, so that an interrupted run goes
on. Writes results/{text,digits}.{md,csv,png} after each scheme, with what is known by then.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import samples

FOLDER = Path(__file__).parent
CACHE, RESULTS = FOLDER / "cache", FOLDER / "results"
MIB = 1 << 20


@dataclass(frozen=True)
class Task:
    """A model with its data, and how it is fine-tuned.

    Attributes:
        budgets: Of the process that trains, MiB: little, and about a quarter, a half and three
            quarters of the way from training the head alone to training everything.
        head: The classifier, whose learning rate is multiplied by `head_lr_scale`.
        rows: That are learnt from.
        blocks: The most last blocks that are trained by hand.
        detail: What the search fine-tunes by itself.
    """

    name: str
    title: str
    budgets: tuple[int, ...]
    head: str
    head_lr_scale: int
    rows: int
    epochs: int
    blocks: int
    detail: str


TASKS = {
    "text": Task(
        "text", "MiniLM-L6, Reuters-R8", (16, 80, 155, 230), "classifier", 10, 320, 2, 6,
        "weight",
    ),
    "digits": Task(
        "digits", "EfficientNet-Lite0, digits", (10, 24, 40, 56), "network._fc", 30, 480, 4, 16,
        "weight",
    ),
}  # fmt: skip


def run(*command: object, capture: bool = False) -> str:
    """Run Python on something in this folder; stop if that fails."""
    output = subprocess.PIPE if capture else None
    arguments = [sys.executable, *map(str, command)]
    done = subprocess.run(arguments, cwd=FOLDER, stdout=output, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def data(task: Task, part: str) -> Path:
    """Return a file of a task's data."""
    return CACHE / f"{task.name}-{part}.npz"


def search(task: Task, budget: int, options: list[str]) -> Path:
    """Return the configuration that a search finds for a budget."""
    config = CACHE / f"{task.name}-found-{budget}.yaml"
    if not config.exists():
        print(f"== {task.title}: search for {budget} MiB", flush=True)
        run(
            "-m", "pockc.cli", "search", f"{task.name}.py", "--base", f"{task.name}.yaml",
            "--data", data(task, "train").relative_to(FOLDER),
            "--eval", data(task, "held_out").relative_to(FOLDER),
            "--contributions", f"cache/{task.name}.contributions.json",
            "--memory-budget", f"{budget}MiB", "--detail", task.detail,
            "--head-lr-scale", task.head_lr_scale, "--epochs", task.epochs,
            "--repeats", 2, "-o", config.relative_to(FOLDER), *options,
        )  # fmt: skip
    return config


def by_hand(task: Task, preset: str) -> Path:
    """Return a configuration with a preset."""
    config = CACHE / f"{task.name}-{preset.replace(':', '-')}.yaml"
    base = (FOLDER / f"{task.name}.yaml").read_text(encoding="utf-8")
    head = f"{{match: {task.head}, train: all, lr_scale: {task.head_lr_scale}}}"
    config.write_text(f"{base}preset: {preset}\nupdate:\n  - {head}\n", encoding="utf-8")
    return config


def trained(task: Task, config: Path, seeds: int) -> list[dict[str, float]]:
    """Compile and fine-tune with one configuration; return the runs."""
    kept = config.with_suffix(f".{seeds}.json")
    if not kept.exists():
        print(f"== {task.title}: {config.stem}, {seeds} seeds", flush=True)
        artifact = config.with_suffix(".pock")
        run(
            "-m", "pockc.cli", "compile", f"{task.name}.py", "--sparse-update",
            config.relative_to(FOLDER), "--threads", 1, "-o", artifact.relative_to(FOLDER),
        )  # fmt: skip
        figures = run(
            "run.py", artifact, "--pool", data(task, "pool"), "--test", data(task, "test"),
            "--rows", task.rows, "--epochs", task.epochs, "--seeds", seeds, capture=True,
        )  # fmt: skip
        kept.write_text(figures, encoding="utf-8")
        shutil.rmtree(artifact)
    runs: list[dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
    return runs


def row(scheme: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of a scheme over its seeds."""
    accuracy = [r["accuracy"] for r in runs]
    return {
        "scheme": scheme,
        "counted_bytes": int(runs[0]["counted_bytes"]),
        "private_bytes": int(max(r["private_bytes"] for r in runs)),
        "accuracy": statistics.mean(accuracy),
        "spread": statistics.stdev(accuracy),
        "runs": accuracy,
    }


def compare(task: Task, seeds: int, options: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a task's table: schemes made by hand, then those that were found."""
    presets = ["head", "bias", *(f"last:{n}" for n in range(1, task.blocks + 1)), "full"]
    by_hand_rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for preset in presets:
        by_hand_rows.append(row(preset, trained(task, by_hand(task, preset), seeds)))
        write(task, by_hand_rows)
    for budget in task.budgets:
        runs = trained(task, search(task, budget, options), seeds)
        found.append({**row(f"found, {budget} MiB", runs), "budget_bytes": budget * MIB})
        write(task, [*by_hand_rows, *found])
    return [*by_hand_rows, *found]


def best_by_hand(rows: list[dict[str, Any]], budget: int) -> dict[str, Any]:
    """Return the most accurate scheme made by hand that fits a budget."""
    fitting = [r for r in rows if "budget_bytes" not in r and r["counted_bytes"] <= budget]
    return max(fitting, key=lambda r: r["accuracy"])


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| scheme | counted MiB | measured | accuracy | best by hand that fits |",
        "|---|---:|---:|---:|---|",
    ]
    for r in rows:
        beside = ""
        if "budget_bytes" in r:
            best = best_by_hand(rows, r["budget_bytes"])
            gaps = [a - b for a, b in zip(r["runs"], best["runs"], strict=True)]
            by_seed = ", ".join(f"{g:+.3f}" for g in gaps)
            beside = f"{best['scheme']} {best['accuracy']:.3f}; {statistics.mean(gaps):+.3f}, "
            beside += f"by seed {by_seed}"
            if r["private_bytes"] > r["budget_bytes"]:
                beside += "; OVER THE BUDGET"
        lines.append(
            f"| {r['scheme']} | {r['counted_bytes'] / MIB:.1f} | "
            f"{r['private_bytes'] / MIB:.1f} | {r['accuracy']:.3f} ± {r['spread']:.3f} | "
            f"{beside} |"
        )
    return "\n".join(lines) + "\n"


def write(task: Task, rows: list[dict[str, Any]]) -> None:
    """Write table and picture."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{task.name}.md").write_text(table(rows), encoding="utf-8")
    names = ("scheme", "budget_bytes", "counted_bytes", "private_bytes", "accuracy", "spread",
             "runs")  # fmt: skip
    with (RESULTS / f"{task.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**r, "runs": " ".join(f"{a:.4f}" for a in r["runs"])} for r in rows)
    draw(task, rows)


def draw(task: Task, rows: list[dict[str, Any]]) -> None:
    """Draw accuracy over measured memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for found, mark, label in ((False, "o", "by hand"), (True, "s", "found")):
        some = [r for r in rows if ("budget_bytes" in r) == found]
        memory = [r["private_bytes"] / MIB for r in some]
        accuracy, spread = [r["accuracy"] for r in some], [r["spread"] for r in some]
        axes.errorbar(memory, accuracy, spread, fmt=mark, capsize=3, label=label)
        if not found:
            # Names of all numbers of blocks would lie over each other.
            shown = ("head", "bias", "last:1", "last:2", "last:4", "last:8", "full")
            for r, x in zip(some, memory, strict=True):
                if r["scheme"] not in shown:
                    continue
                axes.annotate(
                    r["scheme"], (x, r["accuracy"]), (4, -10), textcoords="offset points"
                )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("private memory of the process that trains (MiB)")
    axes.set_ylabel("accuracy on the test rows")
    axes.set_title(task.title)
    axes.legend()
    figure.savefig(RESULTS / f"{task.name}.png", dpi=120, metadata={"Software": None})


def main() -> None:
    """Run everything for one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("search", nargs="*", help="options for `pockc search`, after --")
    chosen = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    samples.prepare()
    task = TASKS[chosen.task]
    print(table(compare(task, chosen.seeds, chosen.search)))


if __name__ == "__main__":
    main()
