"""What a backend is: a name, the ops it lowers, and from finished graphs to files.

A backend that generates kernels does that in two moves, and leaves the rest to
`pockc.backends.native`. `select` says for every node which kernel computes it, before anything
is compiled: the plan needs the workspaces. `build` turns kernels into object files. Identical
kernels are one kernel: it is named by the hash of its canonical text, which holds all that its
code depends on and no name of a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from pockc import ops
from pockc.backends.schedule import DEFAULT, Schedule
from pockc.errors import InternalError, Problem
from pockc.ir.attrs import Attrs, Literal
from pockc.ir.graph import Graph, Node
from pockc.ir.printer import print_node
from pockc.ir.types import DType, TensorType
from pockc.ir.views import is_view
from pockc.passes.pipeline import Form
from pockc.plan.product import Product
from pockc.plan.types import Call
from pockc.scheme.scheme import Trained

Rule = TypeVar("Rule", bound=Callable[..., object])
Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` while kernels are compiled."""


def quiet(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel to build: what it computes, apart from the names of the values.

    Attributes:
        symbol: Its C symbol, `k_<family>_<hash>`.
        text: Its canonical text; equal texts are equal kernels.
        node: A node that it computes.
        operands: The types of the node's operands.
        threads: Number of threads that its static partition is made for.
        workspace_bytes: Size of each workspace.
        schedule: Choices that were measured to be faster than the generator's own.
    """

    symbol: str
    text: str
    node: Node
    operands: tuple[TensorType, ...]
    threads: int
    workspace_bytes: tuple[int, ...] = ()
    schedule: Schedule = DEFAULT


@dataclass(frozen=True, slots=True)
class Selection:
    """The kernels of a graph.

    Attributes:
        calls: By node name. Views, and literals that live in the state, have no call.
        kernels: By symbol, each once.
    """

    calls: Mapping[str, Call]
    kernels: Mapping[str, Kernel]


@dataclass(frozen=True)
class Job:
    """What a backend is told besides the graphs.

    Attributes:
        folder: Where it may leave files.
        target: Name of the machine.
        threads: For how many threads the work is divided; None for the target's cores.
        static: Whether native code is to be one program that needs no C library.
        schedules: Measured choices of kernels, by symbol; None where nothing was measured.
        micro_batches: How many calls of `train_step` make one update.
        values: Parameters and buffers of the model by name.
        optimizer_name: The optimizer, for a runtime that has its own.
        optimizer_options: All of its options.
        trained: What is trained, and how.
        opset: Version of the operators of an ONNX model; None for one that the backend likes.
        progress: Called as `progress(stage, done, total)`.
    """

    folder: Path
    target: str = "host"
    threads: int | None = None
    static: bool = False
    schedules: Mapping[str, Schedule] | None = None
    micro_batches: int = 1
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    optimizer_name: str = ""
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Trained] = field(default_factory=dict)
    opset: int | None = None
    progress: Callable[[str, int, int], None] = field(default=quiet, compare=False)


class Backend(Protocol):
    """Turns the finished graphs of an artifact's entries into files that run them."""

    @property
    def name(self) -> str:
        """The name by which a user chooses it."""
        ...

    @property
    def native(self) -> frozenset[str]:
        """The ops it has a lowering for; others must be decomposed before."""
        ...

    @property
    def form(self) -> Form:
        """Which form it wants graphs in."""
        ...

    def check(self, target: str, opset: int | None) -> None:
        """Check before anything long runs that it can do what it is asked to.

        Raises:
            UserError: A package is missing; the target or the opset is unknown.
        """
        ...

    def emit(self, graphs: Mapping[str, Graph], job: Job) -> Product:
        """Return the files of an artifact. Equal input, equal bytes.

        Raises:
            UserError: [no-lowering] for every node whose op the backend does not lower.
        """
        ...


class KernelMaker(Protocol):
    """Turns nodes into kernels: what `pockc.backends.native` links."""

    @property
    def version(self) -> str:
        """Changes with everything that the code of a kernel depends on."""
        ...

    def select(
        self,
        graph: Graph,
        target: str = "host",
        threads: int = 2,
        schedules: Mapping[str, Schedule] = MappingProxyType({}),
    ) -> Selection:
        """Choose a kernel for every node that needs one.

        Args:
            graph: The graph.
            target: Name of the machine.
            threads: Number of threads to divide the work for.
            schedules: Measured choices, by the symbol of a kernel.

        Raises:
            UserError: [unknown-choice] A schedule has a choice that its kernel does not offer.
            UserError: [no-lowering] for every node whose op the backend does not lower.
        """
        ...

    def candidates(self, kernel: Kernel, target: str = "host") -> Sequence[Kernel]:
        """Return kernels that differ from one in their schedule, each with its own symbol."""
        ...

    def build(
        self,
        kernels: Sequence[Kernel],
        target: str = "host",
        progress: Progress | None = None,
    ) -> Mapping[str, bytes]:
        """Compile kernels; return for each symbol an object file. Equal input, equal bytes."""
        ...


class Lowerings(Generic[Rule]):
    """The table of a backend's lowerings; its keys are the ops it supports."""

    def __init__(self, backend: str) -> None:
        """Start an empty table for the backend of that name."""
        self.backend = backend
        self._rules: dict[str, Rule] = {}

    def __call__(self, *names: str) -> Callable[[Rule], Rule]:
        """Register the decorated function for the named ops.

        Raises:
            InternalError: A name is no op, or has a lowering already.
        """

        def register(rule: Rule) -> Rule:
            for name in names:
                if name not in ops.OPS:
                    raise InternalError(Problem("lowering-no-op", f"'{name}' is not an op"))
                if name in self._rules:
                    raise InternalError(
                        Problem("lowering-twice", f"{self.backend} lowers '{name}' twice")
                    )
                self._rules[name] = rule
            return rule

        return register

    def __getitem__(self, name: str) -> Rule:
        """Return the lowering of an op."""
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        """Return whether an op has a lowering."""
        return name in self._rules

    @property
    def names(self) -> frozenset[str]:
        """The ops that have a lowering."""
        return frozenset(self._rules)


def needs_kernel(graph: Graph, node: Node) -> bool:
    """Return whether a node must be computed: views and literals are there already."""
    return node.op != "literal" and not is_view(graph, node)


def unlowered(graph: Graph, native: frozenset[str], backend: str) -> Iterator[Problem]:
    """Report every node, also inside fused bodies, whose op the backend does not lower."""
    for node in graph.nodes:
        if node.op == "fused":
            yield from unlowered(node.attrs["body"], native, backend)
        if not needs_kernel(graph, node) or node.op in native:
            continue
        yield Problem(
            "no-lowering",
            f"backend '{backend}' does not lower '{node.op}', and it has no decomposition",
            at=print_node(node),
            source=None if node.source is None else str(node.source),
            fix=f"give pockc/ops/{node.op}.py a `decompose`, or choose another backend",
        )


def kernel_text(node: Node, operands: Sequence[TensorType]) -> str:
    """Return the canonical text of a node: op, attributes and types, without names."""
    types = ", ".join(map(str, operands))
    return f"{node.op}({types}){_attrs_text(node.attrs)} -> {node.type}"


def kernel_symbol(family: str, text: str) -> str:
    """Return the C symbol of a kernel from its canonical text."""
    return f"k_{family}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _attrs_text(attrs: Attrs) -> str:
    return "{" + ", ".join(f"{k}={_value_text(v)}" for k, v in attrs.items()) + "}"


def _value_text(value: object) -> str:
    match value:
        case Graph():
            return _graph_text(value)
        case Literal():
            return f"literal:{value.digest}"
        case DType():
            return value.value
        case float():
            return value.hex()
        case tuple():
            return "(" + ",".join(map(_value_text, value)) + ")"
        case _:
            return repr(value)


def _graph_text(graph: Graph) -> str:
    """Return a body with its values numbered in order of definition."""
    number = {name: f"%{i}" for i, name in enumerate(graph.defs)}
    lines = [f"{number[i.name]}:{i.type}" for i in graph.inputs]
    for node in graph.nodes:
        reads = ",".join(number[i] for i in node.inputs)
        lines.append(
            f"{number[node.name]}={node.op}({reads}){_attrs_text(node.attrs)}:{node.type}"
        )
    results = ",".join(number[o.value] for o in graph.outputs)
    return "{" + "; ".join(lines) + f"; return {results}" + "}"
