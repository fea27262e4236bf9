"""The table of handlers, and what they emit nodes with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import fx

from pockc.errors import InternalError, Problem
from pockc.frontend.dtypes import dtype_of
from pockc.ir import (
    DType,
    Literal,
    Scalar,
    Source,
    TensorType,
)
from pockc.ir.attrs import AttrValue
from pockc.ir.builder import GraphBuilder
from pockc.ops import OPS


class Value(str):
    """The name of a value of the graph; never confused with an argument that is a text."""

    __slots__ = ()


Number: TypeAlias = "int | float | bool"
Operand: TypeAlias = "Value | int | float | bool"
Result: TypeAlias = "Value | tuple[Value | None, ...]"


class Handler(Protocol):
    """Emits what an ATen operation means.

    Positional arguments come as in the operation's schema, defaults filled in; tensors as
    `Value`. Of the named ones only those that say something about values are passed.
    """

    def __call__(self, b: Importer, /, *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401
        """Return the value or values of the operation's results."""


H = TypeVar("H", bound=Callable[..., Any])
HANDLERS: dict[str, Handler] = {}

# Arguments that say where a result lives, not what it is.
PLACEMENT = frozenset(
    ("device", "layout", "pin_memory", "memory_format", "non_blocking", "generator", "names")
)


def lower(*names: str) -> Callable[[H], H]:
    """Register a function as the handler of ATen operations, named as "aten.relu.default"."""

    def register(handler: H) -> H:
        for name in names:
            if name in HANDLERS:
                raise ImportError(f"{name} has two handlers")
            HANDLERS[name] = handler
        return handler

    return register


class Unsupported(Exception):  # noqa: N818  it says what it is
    """A form of an operation that its handler does not know; the text completes a sentence."""


class Importer:
    """Emits nodes into a graph; handlers get it as their first argument.

    Attributes:
        out: The type of the result of the operation being imported, by torch's account.
        outs: The types of all its results, None for those torch did not compute.
        node: The operation itself.
        live: What the results depend on; the rest of the traced graph is not imported.
    """

    def __init__(self, name: str, live: Iterable[fx.Node] = ()) -> None:
        self.builder = GraphBuilder(name)
        self.live = frozenset(live)
        self.node: fx.Node
        self.outs: tuple[TensorType | None, ...] = ()
        self.source: Source | None = None
        self._salt = 0
        self._widened: dict[tuple[Value, DType], Value] = {}
        self._seed: Value | None = None

    @property
    def out(self) -> TensorType:
        """The type of the only result."""
        found = self.outs[0]
        if found is None:
            raise InternalError(Problem("import-type", f"{self.node.target} has no result"))
        return found

    def emit(self, op: str, *inputs: Value, **attrs: AttrValue) -> Value:
        """Add a node that comes from the current line."""
        return Value(self.builder.emit(op, *inputs, name=None, source=self.source, **attrs))

    def type_of(self, value: Value) -> TensorType:
        """Return the type of a value."""
        return self.builder.type_of(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.builder.type_of(value).shape

    def scalar(self, value: Number, dtype: DType) -> Value:
        """Return a 0-d constant of a type."""
        kept = float(value) if dtype.is_float else int(value)
        return Value(self.builder.scalar(bool(value) if dtype is DType.B1 else kept, dtype))

    def to(self, x: Operand, dtype: DType) -> Value:
        """Return an operand as a value of a type."""
        if not isinstance(x, Value):
            return self.scalar(x, dtype)
        # Widening and narrowing again gives the same number.
        x = self._widened.get((x, dtype), x)
        if self.type_of(x).dtype is dtype:
            return x
        y = self.emit("cast", x, dtype=dtype)
        if (self.type_of(x).dtype, dtype) == (DType.F32, DType.F64):
            self._widened[y, DType.F32] = x
        return y

    def apply(self, op: str, *operands: Operand, dtype: DType | None = None) -> Value:
        """Add an elementwise node whose operands are brought to one type.

        Args:
            op: An elementwise op.
            operands: Values, or numbers that become constants.
            dtype: The type to compute in; that of the first value if not given.
        """
        if dtype is None:
            dtype = next(self.type_of(x).dtype for x in operands if isinstance(x, Value))
        return self.emit(op, *(self.to(x, dtype) for x in operands))

    def where(
        self, condition: Value, a: Operand, b: Operand, dtype: DType | None = None
    ) -> Value:
        """Return `a` where the condition holds, else `b`."""
        if dtype is None:
            dtype = next(self.type_of(x).dtype for x in (a, b) if isinstance(x, Value))
        return self.emit("where", condition, self.to(a, dtype), self.to(b, dtype))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return a value under another shape."""
        wanted = tuple(int(n) for n in shape)
        return x if self.shape(x) == wanted else self.emit("reshape", x, shape=wanted)

    def permute(self, x: Value, perm: Sequence[int]) -> Value:
        """Return a value with its dimensions in another order."""
        rank = len(perm)
        wanted = tuple(int(d) % rank for d in perm) if rank else ()
        return x if wanted == tuple(range(rank)) else self.emit("permute", x, perm=wanted)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Return a value repeated to a shape that it broadcasts to."""
        wanted = tuple(int(n) for n in shape)
        return x if self.shape(x) == wanted else self.emit("broadcast_to", x, shape=wanted)

    def reduce(
        self, op: str, x: Value, axes: Sequence[int], *, keepdims: bool = False
    ) -> Value:
        """Add a reduction; over no axes it is the operand itself."""
        rank = len(self.shape(x))
        normal = tuple(sorted(d % rank for d in axes)) if rank else ()
        return self.emit(op, x, axes=normal, keepdims=keepdims) if normal else x

    def sum_to(self, x: Value, shape: Sequence[int]) -> Value:
        """Add up what broadcasting from `shape` has repeated."""
        have, want = self.shape(x), tuple(shape)
        lead = len(have) - len(want)
        axes = list(range(lead))
        axes += [lead + d for d, n in enumerate(want) if n == 1 and have[lead + d] != 1]
        return self.reshape(self.reduce("reduce_sum", x, axes), want)

    def full(self, value: Number, tensor: TensorType) -> Value:
        """Return a tensor of one number."""
        number = self.scalar(value, tensor.dtype)
        return self.expand(number, tensor.shape)

    def zeros(self) -> Result:
        """Return something of the types of the results, to go on with after a problem."""
        if not isinstance(self.node.meta["val"], (tuple, list)):
            return self.full(0, self.out)
        return tuple(None if t is None else self.full(0, t) for t in self.outs)

    def iota(self, shape: Sequence[int], axis: int, dtype: DType = DType.I64) -> Value:
        """Return the index along an axis."""
        return self.emit("iota", shape=tuple(shape), axis=axis, dtype=dtype)

    def literal(self, array: np.ndarray) -> Value:
        """Return a constant array."""
        return self.emit("literal", value=Literal(array))

    def random(self, shape: Sequence[int]) -> Value:
        """Return fresh f32 numbers in [0, 1); calls are numbered in the order of the graph."""
        if self._seed is None:
            role = Scalar("seed")
            self._seed = Value(self.builder.input(role, TensorType((), DType.I64), name="seed"))
        self._salt += 1
        return self.emit("random_uniform", self._seed, shape=tuple(shape), salt=self._salt - 1)


def supported(name: str) -> bool:
    """Return whether an ATen operation can be imported, by its name."""
    return name in HANDLERS or name in ONE_TO_ONE


def promoted(b: Importer, *operands: Operand) -> DType:
    """Return the type that torch computes in, given operands as they are."""
    kept = [
        torch.empty(b.shape(x)[:1] and (1,), dtype=_TORCHS[b.type_of(x).dtype])
        if isinstance(x, Value)
        else x
        for x in operands
    ]
    result = torch.result_type(kept[0], kept[-1])
    found = dtype_of(result)
    if found is None:
        raise Unsupported(f"computes in {result}")
    return found


_TORCHS = {
    ours: dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and (ours := dtype_of(dtype)) is not None
}
ONE_TO_ONE = {aten: op.name for op in OPS.values() for aten in op.aten}


def op_name(node: fx.Node) -> str:
    """Return the name of an operation as "aten.relu.default"."""
    return str(node.target)
