"""Short fine-tunes of candidates on compiled artifacts, in several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pockc import driver, runtime
from pockc.scheme import Config
from pockc.search.space import Genes, Space, make_space
from pockc.search.store import Store


@dataclass(frozen=True)
class FineTune:
    """How a candidate is fine-tuned.

    Attributes:
        model: How the user names the model; every process loads it for itself.
        config: The optimizer and everything else but what is trained.
        options: The target.
        head_lr_scale: As for the space.
        train: Arrays by input name.
        held_out: Arrays by input name, for the accuracy.
        epochs: How often every row is seen.
        seed: Of the order of the rows.
    """

    model: str
    config: Config
    options: driver.Options
    head_lr_scale: float
    train: Mapping[str, np.ndarray]
    held_out: Mapping[str, np.ndarray]
    epochs: int = 1
    seed: int = 0


def fine_tune(
    captured: Any,  # noqa: ANN401  Captured, which a type checker knows from elsewhere
    config: Config,
    how: FineTune,
) -> dict[str, float]:
    """Compile, train, evaluate; return `score` (accuracy, or minus the loss) and `loss`."""
    with TemporaryDirectory(prefix="pockc-") as folder:
        path = Path(folder) / "candidate.pock"
        driver.build_captured(captured, config, path, how.options)
        with runtime.load(path, how.options.threads) as artifact:
            schedule = runtime.TrainOptions(epochs=how.epochs, seed=how.seed, schedule="linear")
            history = artifact.train(how.train, schedule)
            found = artifact.evaluate(how.held_out)
            memory = artifact.memory
    score = found.get("accuracy", -found["loss"])
    return {
        "score": score,
        "loss": found["loss"],
        "seconds": round(history.seconds, 3),
        "memory_bytes": memory.state_bytes + memory.arena_bytes,
    }


_worker: dict[str, Any] = {}


def _end_with(parent: int) -> None:
    """End this process when the one that started it was killed, which tells nobody."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _begin(how: FineTune) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    from pockc.frontend.loading import load_model

    user = load_model(how.model)
    captured = driver.capture_model(user, how.config, how.options)
    space = make_space(captured.parameters, captured.modules, head_lr_scale=how.head_lr_scale)
    _worker.update(how=how, captured=captured, space=space)


def _work(genes: Genes) -> dict[str, float]:
    how: FineTune = _worker["how"]
    space: Space = _worker["space"]
    return fine_tune(_worker["captured"], space.config(how.config, genes), how)


def analyse(
    candidates: Mapping[str, Genes],
    store: Store,
    how: FineTune,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    processes: int | None = None,
) -> None:
    """Fine-tune every candidate that the store does not have yet.

    Args:
        candidates: By name.
        store: Where results go, each as soon as it is there.
        how: How to fine-tune.
        progress: Called with how many are done, of how many, and the last one's name.
        processes: How many at once; None is one per processor.
    """
    missing: Sequence[str] = [n for n in candidates if n not in store.results]
    done = len(candidates) - len(missing)
    progress(done, len(candidates), "")
    if not missing:
        return
    count = min(processes or len(os.sched_getaffinity(0)), len(missing))
    how = replace(
        how, options=replace(how.options, threads=1, progress=driver.Options().progress)
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (how,)) as pool:
        running = {pool.submit(_work, candidates[n]): n for n in missing}
        try:
            for future in as_completed(running):
                store.put(running[future], future.result())
                done += 1
                progress(done, len(candidates), running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
