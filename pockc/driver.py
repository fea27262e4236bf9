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
from pockc.backends import native, tvm
from pockc.backends.base import Backend, Job, Kernel, quiet
from pockc.backends.schedule import Schedule
from pockc.backends.tvm import targets
from pockc.errors import Problem, UserError
from pockc.frontend.captured import Captured, Recipe
from pockc.frontend.choices import LOSSES, OPTIMIZERS, option_names
from pockc.frontend.ranges import input_ranges
from pockc.ir import Graph, OptState, Param, print_graph
from pockc.passes import pipeline
from pockc.passes.attach_optimizer import Attachment
from pockc.passes.base import Keep
from pockc.plan.product import Product
from pockc.runtime.manifest import Manifest
from pockc.scheme import Config, Scheme, load_config, recomputed_modules, report, resolve
from pockc.tuning.database import read_database

if TYPE_CHECKING:
    from torch import nn

    from pockc.frontend.loading import UserModel
    from pockc.frontend.losses import LossSpec

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a stage begins at 0 and ends at its total."""


@dataclass(frozen=True)
class Options:
    """What depends neither on the model nor on how it is trained.

    Attributes:
        target: The machine that the artifact is for: a name, or a target string of TVM.
        backend: Who makes the program: kernels, or models for another runtime.
        threads: For how many threads the work is divided; None for the target's cores.
        static: Make the artifact's `pock-run` one static program with the model's code in it,
            for a system without the usual C library.
        opset: Version of ONNX's operators, for a backend that writes ONNX.
        dump_passes: Folder for the graph after each pass.
        progress: Told about the stages.
        tuning_db: Measured schedules of kernels.
    """

    target: str = "host"
    backend: str = "tvm"
    threads: int | None = None
    static: bool = False
    opset: int | None = None
    dump_passes: Path | None = None
    progress: Progress = field(default=quiet, compare=False)
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
    opset: int | None = None,
    dump_passes: str | Path | None = None,
    tuning_db: str | Path | None = None,
    progress: Progress = quiet,
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
        target: The machine that the artifact is for: a name, or a target string of TVM.
        backend: Who makes the program: "tvm" kernels of its own, "onnx" and "ort-training"
            models for ONNX Runtime.
        target_example: Targets for one batch, for a loss of your own.
        class_names: What the labels mean.
        threads: For how many threads the work is divided; None for the target's cores.
        opset: Version of ONNX's operators; None for the one that suits the installed runtime.
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
    options = Options(
        target, backend, threads, opset=opset, dump_passes=dump, progress=progress,
        tuning_db=database,
    )  # fmt: skip
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
    backends.get(options.backend).check(options.target, options.opset)
    schedules = _schedules(options)  # a damaged database is told before anything long runs
    captured = capture_model(user, config, options)
    return _build(captured, config, path, options, schedules)


def build_captured(
    captured: Captured, config: Config, path: Path, options: Options
) -> Manifest:
    """Compile a captured model; one capture serves every scheme and optimizer.

    Raises:
        UserError: The configuration or the target cannot be used; says why.
    """
    return _build(captured, config, path, options, _schedules(options))


def _build(
    captured: Captured,
    config: Config,
    path: Path,
    options: Options,
    schedules: Mapping[str, Schedule] | None,
) -> Manifest:
    backend = backends.get(options.backend)
    options.progress("passes", 0, 1)
    stages: dict[str, Graph] = {}
    scheme, recipes, graphs = _finished(captured, config, options, keep=stages.__setitem__)
    full = _full_update(captured, config, backend)
    options.progress("passes", 1, 1)
    with tempfile.TemporaryDirectory(prefix="pockc-") as folder:
        job = Job(
            folder=Path(folder),
            target=options.target,
            threads=options.threads,
            static=options.static,
            schedules=schedules,
            micro_batches=captured.micro_batches,
            values=captured.values,
            optimizer_name=config.optimizer.name,
            optimizer_options=_optimizer_options(config),
            trained=scheme.trained,
            opset=options.opset,
            progress=options.progress,
        )
        product = backend.emit(graphs, job)
        contents = artifact.Contents(
            product=product,
            values=captured.values,
            buffers=_buffers(captured),
            graph_text="\n".join(print_graph(g, sources=True) for g in graphs.values()),
            batch_rows=captured.rows,
            producer=f"pockc {__version__}",
            micro_batches=captured.micro_batches,
            aliases=captured.aliases,
            hidden=_hidden(captured),
            initial=_initial(recipes),
            learning_rate=float(_optimizer_options(config)["lr"]),
            class_names=captured.class_names or (),
            input_values=input_ranges(captured),
            trained=_trained(captured, scheme),
            multiply_adds={n: _multiply_adds(g) for n, g in graphs.items()},
            report=_report(captured, scheme, config, graphs["train_step"], full),
            details=_details(product, stages),
        )
        return artifact.write_artifact(path, contents)


@dataclass(frozen=True)
class Planned:
    """All that is known of an artifact before a kernel is built.

    Attributes:
        scheme: What is trained.
        recipes: The update of each trained parameter.
        entries: The graphs as they will run, with their calls.
        memory: Where every byte lies.
        kernels: The kernels to build, by symbol, in the order of their names.
        host: What the memory of the runtime depends on besides.
    """

    scheme: Scheme
    recipes: Mapping[str, Recipe]
    entries: tuple[plan.Entry, ...]
    memory: plan.Plan
    kernels: Mapping[str, Kernel]
    host: plan.Host

    @property
    def runtime(self) -> plan.RuntimeMemory:
        """At most what the process that runs it takes besides state and arena."""
        return plan.runtime_memory(self.memory, self.host)


def plan_captured(
    captured: Captured,
    config: Config,
    options: Options,
    known: dict[tuple[object, ...], Recipe] | None = None,
) -> Planned:
    """Return the plan of a captured model; nothing is built.

    Args:
        captured: The model.
        config: What is trained, and how.
        options: The target; the kernels are those of `tvm`.
        known: Traces of the optimizer to take from and add to, for many plans of one model.

    Raises:
        UserError: The configuration or the target cannot be used; says why.
    """
    scheme, recipes, graphs = _finished(captured, config, options, known)
    target = targets.get(options.target)
    threads = options.threads or target.cores
    kernels = native.plan_kernels(
        tvm.BACKEND, graphs, options.target, threads, _schedules(options)
    )
    host = native.host_for(target.triple, threads)
    return Planned(scheme, recipes, kernels.entries, kernels.memory, kernels.kernels, host)


def _finished(
    captured: Captured,
    config: Config,
    options: Options,
    known: dict[tuple[object, ...], Recipe] | None = None,
    keep: Keep | None = None,
) -> tuple[Scheme, Mapping[str, Recipe], Mapping[str, Graph]]:
    """Return what is trained, the update of each, and the entries ready for a backend."""
    backend = backends.get(options.backend)
    scheme = resolve(
        config, captured.parameters, captured.values, captured.modules, captured.aliases
    )
    recipes = _recipes(captured, scheme, config, known)
    choices = _choices(captured, scheme, config, recipes, backend)
    graphs = pipeline.compile_entries(_graphs(captured), choices, options.dump_passes, keep)
    return scheme, recipes, graphs


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


def _recipes(
    captured: Captured,
    scheme: Scheme,
    config: Config,
    known: dict[tuple[object, ...], Recipe] | None = None,
) -> dict[str, Recipe]:
    """Return the update of each trained parameter; one trace serves equal types."""
    from pockc.frontend.optimizers import recipe

    given = config.optimizer.spec
    traced = {} if known is None else known
    recipes = {}
    for name, how in scheme.trained.items():
        whole = captured.parameters[name].type
        part = whole.with_shape(how.shape(whole.shape))
        key = (part, how.weight_decay)
        if key not in traced:
            traced[key] = recipe(given, part, weight_decay=how.weight_decay)
        recipes[name] = traced[key]
    return recipes


def _optimizer_options(config: Config) -> dict[str, Any]:
    """Return all options of the optimizer, its own defaults where none are given."""
    from pockc.frontend.optimizers import resolve_optimizer

    return dict(resolve_optimizer(config.optimizer.spec)[1])


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
        form=backend.form,
        recomputed=_recomputed(captured, config, backend),
    )


def _recomputed(captured: Captured, config: Config, backend: Backend) -> tuple[str, ...]:
    """Return the modules that backward computes again.

    Raises:
        UserError: [recompute] A pattern matches no module, or the backend orders its operators
            itself, and would share what is computed twice.
    """
    modules = recomputed_modules(config, captured.modules)
    if modules and backend.form is not pipeline.Form.KERNELS:
        what = "recompute needs kernels of our own: other runtimes decide what they keep"
        fix = "leave it out of the configuration, or compile with --backend tvm"
        raise UserError(Problem("recompute", what, at=config.place("recompute"), fix=fix))
    return modules


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


def _schedules(options: Options) -> Mapping[str, Schedule] | None:
    """Return the measured schedules for the machine and the threads, by kernel."""
    if options.tuning_db is None:
        return None
    target = targets.get(options.target)
    database = read_database(options.tuning_db)
    return database.schedules(target.key, options.threads or target.cores)


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


def _details(product: Product, stages: Mapping[str, Graph]) -> dict[str, str]:
    """Return the texts that `show` and `report` draw."""
    texts = {
        artifact.stage_name(name): print_graph(graph, sources=True)
        for name, graph in stages.items()
    }
    return ({artifact.MEMORY: product.memory_map} if product.memory_map else {}) | texts


def _report(
    captured: Captured,
    scheme: Scheme,
    config: Config,
    train_step: Graph,
    full: report.Cost,
) -> dict[str, Any]:
    """Return what `inspect` shows, as JSON values."""
    cost = report.measure(train_step, scheme, captured.parameters)
    return {
        "loss": captured.loss,
        "optimizer": {"name": config.optimizer.name, **config.optimizer.options},
        **({"origin": scheme.origin} if scheme.origin else {}),
        "scheme": report.scheme_data(scheme, captured.parameters),
        "savings": report.savings_data(cost, full),
    }
