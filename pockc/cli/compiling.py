"""The `compile` command's run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pockc.cli import inspecting
from pockc.cli.console import progress_bar, say, show
from pockc.cli.places import check_artifact_target
from pockc.cli.text import size
from pockc.runtime.opening import read_manifest


@dataclass(frozen=True)
class CompileRequest:
    """What `pockc compile` was asked to do.

    Attributes:
        model: How the user names the model.
        output: Where the artifact goes; None takes the model's name.
        sparse_update: The configuration file.
        overrides: Options of the command line that win over the file.
        batch: Rows of a step; None for those of the example inputs.
        target: The machine.
        backend: Who makes the program.
        opset: Version of ONNX's operators; None for the default.
        threads: Threads to divide work for.
        static: Whether `pock-run` is one static program.
        dump_passes: Folder for graphs.
        tuning_db: What `pockc tune` measured.
    """

    model: str
    output: Path | None
    sparse_update: Path | None
    overrides: Mapping[str, Any]
    batch: int | None
    target: str
    backend: str
    opset: int | None
    threads: int | None
    static: bool
    dump_passes: Path | None
    tuning_db: Path | None = None


def run_compile(request: CompileRequest) -> None:
    """Compile, and show what is trained and what that saves."""
    began = time.monotonic()
    path = compile_artifact(request)
    manifest = read_manifest(path)
    for made in (
        inspecting.savings_table(manifest),
        inspecting.scheme_table(manifest),
        inspecting.memory_table(manifest),
    ):
        if made is not None:
            show(made)
            say()
    tuned = manifest.report.get("tuning")
    if tuned is not None:
        say(tuning_line(tuned))
    on_disk = sum(f.nbytes for f in manifest.files.values())
    say(f"wrote {path} ({size(on_disk)}) in {time.monotonic() - began:.1f} s")


def tuning_line(tuned: Mapping[str, int]) -> str:
    """Return how many kernels a tuning database had."""
    return (
        f"tuning database: {tuned['measured']} of {tuned['kernels']} kernels were measured, "
        f"{tuned['changed']} take another schedule"
    )


def compile_artifact(request: CompileRequest) -> Path:
    """Compile without a word, and return where the artifact is."""
    from pockc import driver
    from pockc.frontend.batch import with_batch
    from pockc.frontend.loading import load_model

    # The configuration is read first: a typo in it must not cost the time to load a model.
    config = driver.read_config(request.sparse_update, request.overrides)
    if request.output is not None:
        check_artifact_target(request.output)
    user = load_model(request.model)
    if request.batch is not None:
        user = with_batch(user, request.batch)
    path = request.output or Path(f"{user.name}.pock")
    check_artifact_target(path)
    with progress_bar() as bar:
        options = driver.Options(
            target=request.target,
            backend=request.backend,
            opset=request.opset,
            threads=request.threads,
            static=request.static,
            dump_passes=request.dump_passes,
            progress=bar.update,
            tuning_db=request.tuning_db,
        )
        driver.build(user, config, path, options)
    return path
