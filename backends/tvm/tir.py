"""A thin layer over TVM's statements: code is written in the order in which it runs.

Kernels are written as loops over flat buffers, not as schedules of a tensor expression: an edge
tile is a second loop nest and a row kernel is plain code, both of which a schedule makes hard.
TVM still simplifies, vectorises, unrolls and generates the machine code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

from pockc.ir.types import DType

Expr = Any
"""A TVM expression, or a Python number where one can stand."""

TVM_DTYPE = {
    DType.F64: "float64",
    DType.F32: "float32",
    DType.F16: "float16",
    DType.BF16: "bfloat16",
    DType.I64: "int64",
    DType.I32: "int32",
    DType.I16: "int16",
    DType.I8: "int8",
    DType.U8: "uint8",
    DType.B1: "uint8",
}
"""How each element type lies in memory; a b1 is a byte of value 0 or 1."""

WORKSPACE_BYTES = 2048
"""Temporaries of this size and more are arguments: the arena owns them."""


FAR_BYTES = 1 << 19
"""A tensor of this size and more has left a core's cache before it is read again."""

MOST_WEIGHT = 24
"""A value that would be larger than this, written without names, gets an opaque one."""


@dataclass(eq=False, slots=True)
class Memory:
    """A flat buffer of elements of `dtype`; b1 is stored as bytes and read as truth values."""

    buffer: Any
    dtype: DType
    pointer: Any = None
    size: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole buffer."""
        return self.size * self.dtype.nbytes

    def load(self, offset: Expr, lanes: int = 1) -> Expr:
        """Return the elements at an offset, `lanes` neighbours of them."""
        value = tirx.BufferLoad(self.buffer, [ramp(offset, lanes)])
        return value != tirx.const(0, "uint8") if self.dtype is DType.B1 else value

    def store(self, offset: Expr, value: Expr, lanes: int = 1) -> Any:  # noqa: ANN401
        """Return the statement that stores a value of `lanes` elements."""
        if self.dtype is DType.B1:
            value = tirx.Cast("uint8", value)
        return tirx.BufferStore(self.buffer, value, [ramp(offset, lanes)])

    def prefetch(self, offset: Expr, *, write: bool = False) -> Any:  # noqa: ANN401
        """Return the statement that asks the cache for the line at an offset, a hint."""
        address = tirx.address_of(tirx.BufferLoad(self.buffer, [offset]))
        # The arguments of LLVM's intrinsic: for writing, into every cache, data.
        hints = (
            tirx.const(int(write), "int32"),
            tirx.const(3, "int32"),
            tirx.const(1, "int32"),
        )
        return tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, *hints))


def ramp(offset: Expr, lanes: int) -> Expr:
    """Return the index of `lanes` neighbours."""
    return offset if lanes == 1 else tirx.Ramp(offset, 1, lanes)


@dataclass(slots=True)
class Code:
    """Statements under construction; `loop` and `when` open nested blocks."""

    index_dtype: str = "int32"
    _blocks: list[list[Any]] = field(default_factory=lambda: [[]])
    _names: int = 0
    _meaning: dict[str, Any] = field(default_factory=dict)
    _weights: dict[str, int] = field(default_factory=dict)
    _lanes: list[tuple[int, int, Any]] = field(default_factory=list)
    _extents: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def emit(self, statement: Any) -> None:  # noqa: ANN401
        """Append a statement."""
        self._blocks[-1].append(statement)

    def fresh(self, prefix: str) -> str:
        """Return a name that no other variable of this kernel has."""
        self._names += 1
        return f"{prefix}{self._names}"

    def index(self, prefix: str = "i") -> Expr:
        """Return a new index variable."""
        return tirx.Var(self.fresh(prefix), self.index_dtype)

    def const(self, value: int) -> Expr:
        """Return an index constant."""
        return tirx.const(value, self.index_dtype)

    def bind(self, value: Expr) -> Expr:
        """Name a value, so that it is computed once; constants and variables stay."""
        if not hasattr(value, "ty") or isinstance(
            value, (tirx.Var, tirx.IntImm, tirx.FloatImm)
        ):
            return value
        if dtype_of(value) == "bool":
            return value  # TVM's simplifier fails on vectors of truth values that have a name
        weight = self._weight(value) if "float" in dtype_of(value) else 1
        if weight > MOST_WEIGHT:
            return self.cut(value)
        var = tirx.Var(self.fresh("v"), dtype_of(value))
        self._meaning[var.name] = value
        self._weights[var.name] = weight
        self.emit(tirx.Bind(var, value))
        return var

    def cut(self, value: Expr) -> Expr:
        """Name a value through a register buffer, so that TVM cannot look through the name.

        TVM's analyses put a bound value in place of its name wherever it is used, and a chain
        of polynomials grows without end. LLVM makes a register of the buffer again.
        """
        dtype = dtype_of(value)
        depth, lanes, lane = self._lanes[-1] if self._lanes else (len(self._blocks) - 1, 1, 0)
        buffer = tirx.decl_buffer((lanes,), dtype, name=self.fresh("cut"))
        mark = {"disable_lower_builtin": tirx.const(1, "int32")}
        self._blocks[depth].append(tirx.AllocBuffer(buffer, mark))
        place = self.const(lane) if isinstance(lane, int) else lane
        self.emit(tirx.BufferStore(buffer, value, [place]))
        var = tirx.Var(self.fresh("v"), dtype)
        self._meaning[var.name] = value
        self.emit(tirx.Bind(var, tirx.BufferLoad(buffer, [place])))
        return var

    def _weight(self, value: Expr) -> int:
        """Return about how large a value is with all names replaced by what they mean."""
        names = {v.name for v in tirx.analysis.undefined_vars(value)}
        return 1 + 2 * sum(self._weights.get(n, 1) for n in names)

    def depends(self, value: Expr, var: Expr) -> bool:
        """Return whether a value depends on a loop variable, looking through bound names."""
        if not hasattr(value, "ty"):
            return False
        names = {v.name for v in tirx.analysis.undefined_vars(value)}
        return var.name in names or any(
            self.depends(self._meaning[n], var) for n in sorted(names & self._meaning.keys())
        )

    def decide(self, condition: Expr) -> bool | None:
        """Return whether a condition always or never holds, None if it depends.

        What is known are the bounds of the loops around, and what names are bound to.
        """
        analyzer = tvm.sym.Analyzer()
        self._learn(analyzer, condition)
        if analyzer.can_prove(condition):
            return True
        return False if analyzer.can_prove(tirx.Not(condition)) else None

    def _learn(self, analyzer: Any, value: Expr) -> None:  # noqa: ANN401
        for var in tirx.analysis.undefined_vars(value):
            if var.name in self._extents:
                first, extent = self._extents[var.name]
                analyzer.bind(var, tvm.ir.Range.from_min_extent(first, extent))
            elif var.name in self._meaning:
                self._learn(analyzer, self._meaning[var.name])
                analyzer.bind(var, self._meaning[var.name])

    def mark(self) -> tuple[int, int]:
        """Return the current place, for `rewind`."""
        return len(self._blocks), len(self._blocks[-1])

    def rewind(self, place: tuple[int, int]) -> None:
        """Forget everything written since `mark`."""
        del self._blocks[place[0] :]
        self._lanes = [lane for lane in self._lanes if lane[0] < place[0] - 1]
        del self._blocks[-1][place[1] :]

    def local(self, size: int, dtype: DType) -> Memory:
        """Declare a small buffer of this block, in registers if its indices are constant."""
        buffer = tirx.decl_buffer((size,), TVM_DTYPE[dtype], name=self.fresh("local"))
        # Without this mark TVM would ask the host for memory.
        mark = {"disable_lower_builtin": tirx.const(1, "int32")}
        self.emit(tirx.AllocBuffer(buffer, mark))
        return Memory(buffer, dtype)

    @contextmanager
    def block(self, wrap: Callable[[Any], Any]) -> Iterator[None]:
        """Collect the statements written inside and emit `wrap` of them."""
        self._blocks.append([])
        yield
        inside = self._blocks.pop()
        if inside:
            self.emit(wrap(sequence(inside)))

    @contextmanager
    def loop(self, extent: Expr, kind: str = "serial", start: Expr = 0) -> Iterator[Expr]:
        """Open a loop; yields its variable. A loop of one round is no loop.

        Args:
            extent: Number of rounds.
            kind: serial, parallel, vectorized or unrolled.
            start: First value of the variable.
        """
        if isinstance(extent, int) and extent == 1:
            yield self.const(start) if isinstance(start, int) else start
            return
        var = self.index()
        how = tirx.ForKind[kind.upper()]
        self._extents[var.name] = (start, extent)
        lanes = [(len(self._blocks) - 1, extent, var)] if kind == "vectorized" else []
        self._lanes += lanes
        with self.block(lambda body: tirx.For(var, start, extent, how, body)):
            yield var
        del self._lanes[len(self._lanes) - len(lanes) :]

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Open a block that runs only if a condition holds; a condition of None always does."""
        if condition is None:
            yield
            return
        with self.block(lambda body: tirx.IfThenElse(condition, body, None)):
            yield

    def finish(self) -> Any:  # noqa: ANN401
        """Return everything written as one statement."""
        return sequence(self._blocks[0])


def sequence(statements: Sequence[Any]) -> Any:  # noqa: ANN401
    """Return the statements as one."""
    if not statements:
        return tirx.Evaluate(tirx.const(0, "int32"))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def dtype_of(value: Expr) -> str:
    """Return TVM's name of an expression's type."""
    return str(value.ty)


def argument(name: str, size: int, dtype: DType) -> Memory:
    """Return a buffer that is an argument of the kernel."""
    tvm_dtype = TVM_DTYPE[dtype]
    pointer = tirx.Var(f"{name}_ptr", PointerType(PrimType(tvm_dtype)))
    return Memory(tirx.decl_buffer((max(size, 1),), tvm_dtype, name=name), dtype, pointer, size)


def c_function(symbol: str, arguments: Sequence[Memory], body: Any) -> Any:  # noqa: ANN401
    """Return `int32_t symbol(void *...)` around a body."""
    for key, value in (("device_type", 1), ("device_id", 0)):
        # TVM asks for the device wherever a temporary might be allocated.
        body = tirx.AttrStmt("default", key, tirx.const(value, "int32"), body)
    declared = [tirx.DeclBuffer(a.buffer, data=a.pointer) for a in arguments]
    body = tirx.SeqStmt([*declared, body, tirx.Return(tirx.const(0, "int32"))])
    function = tirx.PrimFunc([a.pointer for a in arguments], body, PrimType("int32"))
    return function.with_attr({"global_symbol": symbol, "tirx.noalias": True})


def module(functions: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the functions as one TVM module."""
    return tvm.IRModule(functions)
