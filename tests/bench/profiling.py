"""Where the time of a train step goes: every kernel call, timed by the runtime itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pockc import ops
from pockc.cli.console import table
from pockc.ir import DType, Graph, Node, TensorType
from pockc.ir.texts import graph_texts, parse_outline
from pockc.ops import OpKind
from pockc.plan import COPY_KERNEL
from pockc.profile.work import WEIGHT, inner_nodes, work_of
from pockc.runtime.artifact import Artifact
from pockc.runtime.opening import read_graph_text
from pockc.runtime.timing import step_times
from tests.bench.machine import Peak

ENTRY = "train_step"


@dataclass(frozen=True)
class Line:
    """One kernel call of a step, or several alike.

    Attributes:
        symbol: The kernel's C symbol.
        node: The graph's node, the first of several.
        what: Ops and shapes.
        family: The op that has the arithmetic, or the kind of op.
        calls: Calls in a step.
        ms: Median time of all calls together in a step.
        flops: Two for each multiply-add of a product or convolution.
        nbytes: Operands and result, each counted once.
    """

    symbol: str
    node: str
    what: str
    family: str
    calls: int
    ms: float
    flops: int
    nbytes: int

    @property
    def gflops(self) -> float:
        """10^9 operations per second."""
        return self.flops / self.ms * 1e-6 if self.ms else 0.0

    @property
    def gbs(self) -> float:
        """10^9 bytes per second."""
        return self.nbytes / self.ms * 1e-6 if self.ms else 0.0


def profile(artifact: Artifact, batch: Sequence[object], steps: int) -> list[Line]:
    """Run some steps and return one line per kernel call, in order."""
    times = step_times(artifact, batch, steps)[ENTRY]
    graph = parse_outline(graph_texts(read_graph_text(artifact.path))[ENTRY])
    library: Any = artifact._library
    calls = library.steps(library.entries[ENTRY])
    return [
        _line(graph, kernel, node, ms) for (kernel, node), ms in zip(calls, times, strict=True)
    ]


def _line(graph: Graph, symbol: str, name: str, ms: float) -> Line:
    node = graph.node(name)
    work = work_of(graph, symbol, name)
    if node is None or symbol == COPY_KERNEL:
        what, family = f"copy {graph.type_of(name)}", "copy"
    else:
        what, family = _what(graph, node)
    return Line(symbol, name, what, family, 1, ms, work.flops, work.nbytes)


def _what(graph: Graph, node: Node) -> tuple[str, str]:
    """Return ops with the shapes that matter, and the family."""
    inner = list(inner_nodes(graph, node))
    heavy = [(g, n) for g, n in inner if ops.get(n.op).kind is OpKind.CONTRACTION]
    if not heavy:
        kinds = [ops.get(n.op).kind for _, n in inner]
        family = next((k.value for k in WEIGHT if k in kinds), kinds[-1].value)
        return _spelled(_names(inner), graph, node), family
    products = "; ".join(_spelled(n.op, g, n) + _options(n) for g, n in heavy)
    rest = _names([x for x in inner if x not in heavy])
    return products + (f" + {rest}" if rest else ""), heavy[0][1].op


def _spelled(name: str, graph: Graph, node: Node) -> str:
    shapes = dict.fromkeys(_shape(t) for t in graph.operand_types(node))
    return f"{name} {', '.join(shapes)} -> {_shape(node.type)}"


def _shape(tensor: TensorType) -> str:
    dtype = "" if tensor.dtype is DType.F32 else f"{tensor.dtype.value}:"
    return dtype + ("x".join(map(str, tensor.shape)) or "scalar")


def _names(nodes: Sequence[tuple[Graph, Node]]) -> str:
    counts = Counter(n.op for _, n in nodes)
    return "+".join(f"{count}{op}" if count > 1 else op for op, count in counts.items())


def _options(node: Node) -> str:
    """Return stride and groups of a convolution that are not 1."""
    stride, groups = node.attrs.get("stride", (1,)), node.attrs.get("groups", 1)
    found = f" stride {max(stride)}" if max(stride) > 1 else ""
    return found + (f" groups {groups}" if groups > 1 else "")


def merged(lines: Sequence[Line], key: str) -> list[Line]:
    """Return the sums of the lines that agree in `symbol` or `family`, slowest first."""
    found: dict[str, Line] = {}
    for line in lines:
        name = getattr(line, key)
        old = found.get(name)
        found[name] = line if old is None else _sum(old, line)
    return sorted(found.values(), key=lambda line: -line.ms)


def _sum(a: Line, b: Line) -> Line:
    return replace(
        a,
        calls=a.calls + b.calls,
        ms=a.ms + b.ms,
        flops=a.flops + b.flops,
        nbytes=a.nbytes + b.nbytes,
    )


def tables(lines: Sequence[Line], peak: Peak, shown: int) -> Iterator[Table]:
    """Yield the kernels by time, and their sum by family."""
    total = sum(line.ms for line in lines)
    top = merged(lines, "symbol")
    titles = ("ms", "%", "calls", "GFLOP/s", "% peak", "GB/s", "kernel", "node", "what")
    made = table(
        f"Kernels of a train step ({len(top)}), by time", *titles, right=(0, 1, 2, 3, 4, 5)
    )
    for line in top[:shown]:
        made.add_row(*_figures(line, total, peak), line.symbol, line.node, line.what)
    yield made
    made = table("By family", *titles[:6], "family", right=(0, 1, 2, 3, 4, 5))
    for line in merged(lines, "family"):
        made.add_row(*_figures(line, total, peak), line.family)
    everything = replace(_total(lines), family="all kernels")
    made.add_row(*_figures(everything, total, peak), everything.family)
    yield made


def _total(lines: Sequence[Line]) -> Line:
    first, *others = lines
    for line in others:
        first = _sum(first, line)
    return first


def _figures(line: Line, total_ms: float, peak: Peak) -> tuple[str, ...]:
    share = 100 * line.ms / total_ms if total_ms else 0.0
    rate = (
        (f"{line.gflops:.1f}", f"{100 * line.gflops / peak.gflops:.0f}")
        if line.flops
        else ("", "")
    )
    return (f"{line.ms:.3f}", f"{share:.1f}", str(line.calls), *rate, f"{line.gbs:.1f}")


def write_json(lines: Sequence[Line], path: Path) -> None:
    """Write one object per kernel call."""
    rows = [{**asdict(x), "gflops": x.gflops, "gbs": x.gbs} for x in lines]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
