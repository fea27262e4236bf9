"""Short fine-tunes of schemes on compiled artifacts, in several processes at once."""

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
from typing import TYPE_CHECKING, Any

import numpy as np

from pockc import driver, runtime
from pockc.scheme import Config
from pockc.search.store import Store

if TYPE_CHECKING:
    from pockc.frontend.captured import Captured


@dataclass(frozen=True)
class FineTune:
    """How a scheme is fine-tuned.

    Attributes:
        model: How the user names the model; every process loads it for itself.
        batch: Rows of a step; None for those of the example inputs.
        base: The optimizer and everything else but what is trained.
        options: The target.
        train: Arrays by input name.
        held_out: Arrays by input name, for the accuracy.
        epochs: How often every row is seen.
        repeats: Runs with the rows in other orders; the result is their mean.
        seed: Of the order of the rows in the first run.
    """

    model: str
    batch: int | None
    base: Config
    options: driver.Options
    train: Mapping[str, np.ndarray]
    held_out: Mapping[str, np.ndarray]
    epochs: int = 1
    repeats: int = 1
    seed: int = 0


def fine_tune(captured: Captured, config: Config, how: FineTune) -> dict[str, float]:
    """Compile, train, evaluate.

    Returns:
        `loss` and, if the model classifies, `accuracy` on the held-out rows, means over the
        repeats; `seconds` of training and `memory_bytes` as a budget counts them.
    """
    sums: dict[str, float] = {}
    seconds = 0.0
    with TemporaryDirectory(prefix="pockc-") as folder:
        path = Path(folder) / "candidate.pock"
        driver.build_captured(captured, config, path, how.options)
        for repeat in range(how.repeats):
            with runtime.load(path, how.options.threads) as artifact:
                schedule = runtime.TrainOptions(
                    epochs=how.epochs, seed=how.seed + repeat, schedule="linear"
                )
                seconds += artifact.train(how.train, schedule).seconds
                found = artifact.evaluate(how.held_out)
                memory = artifact.manifest.memory
            for name in ("accuracy", "loss"):
                if name in found:
                    sums[name] = sums.get(name, 0.0) + found[name] / how.repeats
    return {
        **sums,
        "seconds": round(seconds, 3),
        "memory_bytes": sum(memory[f"{n}_bytes"] for n in ("state", "arena", "runtime")),
    }


_worker: dict[str, Any] = {}


def _end_with(parent: int) -> None:
    """End this process when the one that started it was killed, which tells nobody."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _begin(how: FineTune) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    from pockc.frontend.batch import with_batch
    from pockc.frontend.loading import load_model

    user = load_model(how.model)
    if how.batch is not None:
        user = with_batch(user, how.batch)
    captured = driver.capture_model(user, how.base, how.options)
    _worker.update(how=how, captured=captured)


def _work(config: Config) -> dict[str, float]:
    return fine_tune(_worker["captured"], config, _worker["how"])


def analyse(
    schemes: Mapping[str, Config],
    store: Store,
    how: FineTune,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    processes: int | None = None,
) -> None:
    """Fine-tune every scheme that the store does not have yet.

    Args:
        schemes: Configurations by name.
        store: Where results go, each as soon as it is there.
        how: How to fine-tune.
        progress: Called with how many are done, of how many, and the last one's name.
        processes: How many at once; None is one per processor.
    """
    missing: Sequence[str] = [n for n in schemes if n not in store.results]
    done = len(schemes) - len(missing)
    progress(done, len(schemes), "")
    if not missing:
        return
    count = min(processes or len(os.sched_getaffinity(0)), len(missing))
    # A process shows no progress of its own, and has one processor.
    options = replace(how.options, threads=1, progress=driver.Options().progress)
    how = replace(how, options=options)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (how,)) as pool:
        running = {pool.submit(_work, schemes[n]): n for n in missing}
        try:
            for future in as_completed(running):
                store.put(running[future], future.result())
                done += 1
                progress(done, len(schemes), running[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
