"""The whole compiler: capture, scheme, passes, plan, kernels, artifact, in this order."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pockc import __version__, artifact, backends, plan, runtime
from pockc.backends import native
from pockc.backends.base import Backend, Kernel
from pockc.backends.schedule import DEFAULT, Schedule
from pockc.backends.tvm import targets
from pockc.frontend.captured import Captured, Recipe
from pockc.frontend.choices import LOSSES, OPTIMIZERS, option_names
from pockc.frontend.ranges import input_ranges
from pockc.ir import Graph, OptState, Param, print_graph
from pockc.passes import pipeline
from pockc.passes.attach_optimizer import Attachment
from pockc.runtime.manifest import Manifest
from pockc.scheme import Config, Scheme, load_config, report, resolve
from pockc.tuning.database import read_database

if TYPE_CHECKING:
    from torch import nn

    from pockc.frontend.loading import UserModel
    from pockc.frontend.losses import LossSpec

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a stage begins at 0 and ends at its total."""


def _quiet(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Options:
    """What depends neither on the model nor on how it is trained.

    Attributes:
        target: Name of the machine that the artifact is for.
        backend: Who makes the kernels.
        threads: For how many threads the work is divided; None for the target's cores.
        dump_passes: Folder for the graph after each pass.
        progress: Told about the stages.
        tuning_db: Measured schedules of kernels.
    """

    target: str = "host"
    backend: str = "tvm"
    threads: int | None = None
    dump_passes: Path | None = None
    progress: Progress = field(default=_quiet, compare=False)
    tuning_db: Path | None = None


def compile(  # noqa: PLR0913, PLR0917 the public entry; all but two arguments have a default
    model: nn.Module,
    example_inputs: Any,  # noqa: ANN401  a tensor, a tuple of tensors, or a mapping by name
    loss: LossSpec | None = None,
    optimizer: str | Mapping[str, Any] | None = None,
    sparse_update: str | Path | Mapping[str, Any] | None = None,
    target: str = "host",
    backend: str = "tvm",
    *,
    target_example: Any = None,  # noqa: ANN401  a tensor or several
    class_names: Sequence[str] | None = None,
    threads: int | None = None,
    dump_passes: str | Path | None = None,
    tuning_db: str | Path | None = None,
    progress: Progress = _quiet,
) -> runtime.Artifact:
    """Compile one training step of a model, and return it ready to run.

        artifact = pockc.compile(model, (images,), optimizer={"name": "sgd", "lr": 0.01})
        loss = artifact.train_step(images, labels)
        artifact.save("model.pock")

    Args:
        model: Any module whose operations are covered.
        example_inputs: One batch, as `forward` takes it. Only shapes and types matter.
        loss: A name, a mapping with a name and options, a function of the model's outputs and
            the targets, or "model" if the model returns its loss. Default: cross_entropy.
        optimizer: A name, or a mapping with a name and options. Default: adamw.
        sparse_update: What is trained: a YAML file or a mapping with the same keys. Default:
            everything. The arguments above win over what it says.
        target: Name of the machine that the artifact is for.
        backend: Who makes the kernels.
        target_example: Targets for one batch, for a loss of your own.
        class_names: What the labels mean.
        threads: For how many threads the work is divided; None for the target's cores.
        dump_passes: Folder for the graph after each pass.
        tuning_db: What `pockc tune` measured.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The artifact, in a temporary folder until it is saved.

    Raises:
        UserError: The model, the configuration or the target cannot be used; says why.
    """
    from pockc.frontend.loading import UserModel

    named = loss if isinstance(loss, str | Mapping) else None
    overrides = {"loss": named, "optimizer": optimizer}
    config = read_config(sparse_update, overrides)
    given = None if named is not None else loss
    names = None if class_names is None else tuple(class_names)
    user = UserModel(model, example_inputs, given, target_example, names)
    dump = None if dump_passes is None else Path(dump_passes)
    database = None if tuning_db is None else Path(tuning_db)
    options = Options(target, backend, threads, dump, progress, database)
    path = Path(tempfile.mkdtemp(prefix="pockc-", suffix=".pock"))
    build(user, config, path, options)
    return runtime.load(path, threads=threads, owns_folder=True)


def read_config(
    source: str | Path | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> Config:
    """Return the configuration of a file or mapping, checked against what there is."""
    optimizers, losses = option_names(OPTIMIZERS), option_names(LOSSES)
    return load_config(source, overrides, optimizers=optimizers, losses=losses)


def build(user: UserModel, config: Config, path: Path, options: Options) -> Manifest:
    """Compile a model to the artifact folder `path`.

    Raises:
        UserError: The model, the configuration or the target cannot be used; says why.
    """
    backends.get(options.backend)  # what is misspelled is told before anything long runs
    _schedules(options, targets.get(options.target))
    return build_captured(capture_model(user, config, options), config, path, options)


def build_captured(
    captured: Captured, config: Config, path: Path, options: Options
) -> Manifest:
    """Compile a captured model; one capture serves every scheme and optimizer.

    Raises:
        UserError: The configuration or the target cannot be used; says why.
    """
    backend, target = backends.get(options.backend), targets.get(options.target)
    scheme = resolve(
        config, captured.parameters, captured.values, captured.modules, captured.aliases
    )
    recipes = _recipes(captured, scheme, config)
    choices = _choices(captured, scheme, config, recipes, backend)
    options.progress("passes", 0, 1)
    graphs = pipeline.compile_entries(_graphs(captured), choices, options.dump_passes)
    full = _full_update(captured, config, backend)
    options.progress("passes", 1, 1)
    schedules = _schedules(options, target)
    entries, objects = _kernels(graphs, backend, target, options, schedules)
    memory = plan.make_plan(entries)
    plan.verify_plan(entries, memory)
    with tempfile.TemporaryDirectory(prefix="pockc-") as folder:
        library = Path(folder) / "step.so"
        options.progress("link", 0, 1)
        machine = native.NativeTarget.of_llvm(target.triple)
        native.link(memory, objects, library, machine, captured.micro_batches)
        options.progress("link", 1, 1)
        contents = artifact.Contents(
            plan=memory,
            library=library,
            values=captured.values,
            buffers=_buffers(captured),
            graph_text="\n".join(print_graph(g, sources=True) for g in graphs.values()),
            machine=artifact.machine_for(options.target, target.triple, target.mcpu),
            batch_rows=captured.rows,
            producer=f"pockc {__version__}",
            micro_batches=captured.micro_batches,
            aliases=captured.aliases,
            hidden=_hidden(captured),
            initial=_initial(recipes),
            learning_rate=_learning_rate(config),
            class_names=captured.class_names or (),
            input_values=input_ranges(captured),
            trained=_trained(captured, scheme),
            multiply_adds={n: _multiply_adds(g) for n, g in graphs.items()},
            report=_report(captured, scheme, config, entries, memory, full)
            | _tuning(options, target, schedules, objects),
        )
        return artifact.write_artifact(path, contents)


def capture_model(user: UserModel, config: Config, options: Options) -> Captured:
    """Trace a model with its loss, as the configuration wants it."""
    from pockc.frontend.capture import capture

    loss = user.loss or "cross_entropy"
    if config.loss is not None:
        loss = {"name": config.loss.name, **config.loss.options}
    options.progress("capture", 0, 1)
    captured = capture(
        user.model,
        user.example_inputs,
        loss,
        micro_batches=config.accumulate,
        batch_norm=config.batch_norm,
        target_example=user.target_example,
        class_names=user.class_names,
    )
    options.progress("capture", 1, 1)
    return captured


def _graphs(captured: Captured) -> dict[str, Graph]:
    return {
        "train": captured.train,
        "evaluate": captured.evaluate,
        "predict": captured.predict,
    }


def _recipes(captured: Captured, scheme: Scheme, config: Config) -> dict[str, Recipe]:
    """Return the update of each trained parameter; one trace serves equal types."""
    from pockc.frontend.optimizers import recipe

    given = config.optimizer.spec
    traced: dict[tuple[object, ...], Recipe] = {}
    recipes = {}
    for name, how in scheme.trained.items():
        whole = captured.parameters[name].type
        part = whole.with_shape(how.shape(whole.shape))
        key = (part, how.weight_decay)
        if key not in traced:
            traced[key] = recipe(given, part, weight_decay=how.weight_decay)
        recipes[name] = traced[key]
    return recipes


def _learning_rate(config: Config) -> float:
    """Return the rate that was given, or the optimizer's own default."""
    from pockc.frontend.optimizers import resolve_optimizer

    return float(resolve_optimizer(config.optimizer.spec)[1]["lr"])


def _choices(
    captured: Captured,
    scheme: Scheme,
    config: Config,
    recipes: Mapping[str, Recipe],
    backend: Backend,
) -> pipeline.Choices:
    return pipeline.Choices(
        trainable=scheme.names,
        attachments=tuple(
            Attachment(name, recipes[name].graph, how.lr_scale, how.selection)
            for name, how in scheme.trained.items()
        ),
        selections=tuple(scheme.selections.items()),
        values=captured.values,
        max_norm=config.clip_norm,
        micro_batches=captured.micro_batches,
        native=backend.native,
    )


def _full_update(captured: Captured, config: Config, backend: Backend) -> report.Cost:
    """Return what training everything would cost, to compare with."""
    everything = config.model_copy(update={"preset": "full", "update": None})
    scheme = resolve(
        everything, captured.parameters, captured.values, captured.modules, captured.aliases
    )
    recipes = _recipes(captured, scheme, config)
    choices = _choices(captured, scheme, config, recipes, backend)
    graphs = pipeline.compile_entries({"train": captured.train}, choices)
    return report.measure(graphs["train_step"], scheme, captured.parameters)


def _schedules(options: Options, target: targets.Target) -> Mapping[str, Schedule]:
    """Return the measured schedules for the machine and the threads, by kernel."""
    if options.tuning_db is None:
        return {}
    database = read_database(options.tuning_db)
    return database.schedules(target.key, options.threads or target.cores)


def _tuning(
    options: Options,
    target: targets.Target,
    schedules: Mapping[str, Schedule],
    objects: Mapping[str, bytes],
) -> dict[str, Any]:
    """Return how much of an artifact was measured, as JSON values."""
    found: dict[str, Any] = {"threads": options.threads or target.cores}
    if options.tuning_db is not None:
        known = [schedules[k] for k in objects if k in schedules]
        changed = sum(s != DEFAULT for s in known)
        counts = {"kernels": len(objects), "measured": len(known), "changed": changed}
        found["tuning"] = counts
    return found


def _kernels(
    graphs: Mapping[str, Graph],
    backend: Backend,
    target: targets.Target,
    options: Options,
    schedules: Mapping[str, Schedule],
) -> tuple[list[plan.Entry], Mapping[str, bytes]]:
    """Return what is to be planned, and an object file for each kernel."""
    threads = options.threads or target.cores
    entries: list[plan.Entry] = []
    kernels: dict[str, Kernel] = {}
    for name, graph in graphs.items():
        selection = backend.select(graph, options.target, threads, schedules)
        entries.append(plan.Entry(name, graph, selection.calls))
        kernels |= selection.kernels
    objects = backend.build(
        [kernels[k] for k in sorted(kernels)],
        options.target,
        lambda done, total: options.progress("kernels", done, total),
    )
    return entries, objects


def _buffers(captured: Captured) -> frozenset[str]:
    params = {
        i.role.name
        for g in _graphs(captured).values()
        for i in g.inputs
        if isinstance(i.role, Param)
    }
    return frozenset(captured.values) - params - set(captured.parameters)


def _hidden(captured: Captured) -> frozenset[str]:
    """Return the tensors that are not in the model's `state_dict`, as some buffers are not."""
    shown = {captured.aliases.get(name, name) for name in captured.state_names}
    return frozenset(captured.values) - shown


def _initial(recipes: Mapping[str, Recipe]) -> dict[OptState, np.ndarray]:
    """Return the optimizer's tensors that do not begin as zeros."""
    return {
        OptState(slot, name): np.full(kept.type.shape, kept.initial, kept.type.dtype.np)
        for name, recipe in recipes.items()
        for slot, kept in recipe.slots.items()
        if kept.initial
    }


def _trained(captured: Captured, scheme: Scheme) -> dict[str, int]:
    return {
        name: math.prod(how.shape(captured.parameters[name].shape))
        for name, how in scheme.trained.items()
    }


def _multiply_adds(graph: Graph) -> int:
    return sum(report.multiply_adds(graph, node) for node in graph.nodes)


def _report(
    captured: Captured,
    scheme: Scheme,
    config: Config,
    entries: Sequence[plan.Entry],
    memory: plan.Plan,
    full: report.Cost,
) -> dict[str, Any]:
    """Return what `inspect` shows, as JSON values."""
    cost = report.measure(entries[0].graph, scheme, captured.parameters)
    return {
        "loss": captured.loss,
        "optimizer": {"name": config.optimizer.name, **config.optimizer.options},
        "scheme": report.scheme_data(scheme, captured.parameters),
        "savings": report.savings_data(cost, full),
        "memory": plan.report_data(plan.memory_report(entries, memory)),
        "kernels": plan.kernel_calls(memory),
    }
