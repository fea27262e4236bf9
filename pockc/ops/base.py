"""What an op is: type rule, meaning in NumPy, arithmetic, and samples to test it on."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pockc import ops
from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.graph import Graph, Node
from pockc.ir.types import DType, TensorType, f32

Types = tuple[TensorType, ...]
Arrays = Sequence[np.ndarray]


class OpKind(enum.Enum):
    """Families of ops that passes and backends treat alike."""

    ELEMENTWISE = (
        "elementwise"  # each element from the same place of the operands, broadcasting
    )
    GENERATOR = "generator"  # makes values out of attributes
    VIEW = "view"  # may name the same bytes in another way
    MOVE = "move"  # each element is one element of an operand, or a constant
    INDEX = "index"  # addresses given by data
    REDUCTION = "reduction"  # along axes of one operand
    CONTRACTION = "contraction"  # sums of products
    POOL = "pool"  # windows
    FUSED = "fused"  # a graph of other ops as one kernel


class Emit(Protocol):
    """Adds a node to the graph under construction and returns its value."""

    def __call__(self, op: str, *inputs: str, **attrs: AttrValue) -> str:
        """Add `op` on `inputs`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Operands to try an op on.

    Attributes:
        types: Types of the operands.
        attrs: Attributes of the node.
        bound: Integer operands are drawn from 0 to bound - 1.
        positive: Draw floating point operands above zero.
    """

    types: Types
    attrs: Attrs = Attrs()  # noqa: RUF009  immutable
    bound: int = 2
    positive: bool = False

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return operands drawn at random."""
        return [self._draw(t, rng) for t in self.types]

    def _draw(self, tensor: TensorType, rng: np.random.Generator) -> np.ndarray:
        if tensor.dtype is DType.B1:
            return np.asarray(rng.integers(0, 2, tensor.shape), dtype=np.bool_)
        if tensor.dtype.is_integer:
            return np.asarray(rng.integers(0, self.bound, tensor.shape), dtype=tensor.dtype.np)
        values = rng.standard_normal(tensor.shape)
        return np.asarray(np.abs(values) + 0.1 if self.positive else values, tensor.dtype.np)


def sample(
    *types: TensorType, bound: int = 2, positive: bool = False, **attrs: AttrValue
) -> Sample:
    """Return a sample, attributes given by name."""
    return Sample(types, Attrs(attrs), bound, positive)


def no_flops(types: Types, result: TensorType, attrs: Attrs) -> int:
    """The arithmetic of an op that moves data only."""
    return 0


@dataclass(frozen=True)
class OpDef:
    """Everything there is to know about an op.

    Attributes:
        name: The op's name, which is its file's name too.
        kind: The family.
        infer: Types of operands and attributes to the type of the result, row-major;
            ValueError if they do not fit.
        reference: The meaning.
        flops: Floating point operations (a multiply-add counts two) of a node.
        aten: Operations of PyTorch that this op is, operand by operand.
        decompose: How to say it in other ops; None for a primitive.
        samples: What to try it on, edge cases first.
        cheap: Whether to compute it again costs less than to keep its result.
    """

    name: str
    kind: OpKind
    infer: Callable[[Types, Attrs], TensorType]
    reference: Callable[[Arrays, Attrs], np.ndarray]
    flops: Callable[[Types, TensorType, Attrs], int] = no_flops
    aten: tuple[str, ...] = ()
    decompose: Callable[..., str] | None = None
    samples: tuple[Sample, ...] = ()
    cheap: bool = False


def expect(condition: bool, what: str) -> None:
    """Raise ValueError with `what` unless the condition holds."""
    if not condition:
        raise ValueError(what)


def arity(types: Types, count: int) -> None:
    """Raise ValueError unless there are so many operands."""
    expect(len(types) == count, f"takes {count} operands, found {len(types)}")


def broadcast(types: Types) -> tuple[int, ...]:
    """Return the shape that NumPy broadcasting gives.

    Raises:
        ValueError: The shapes do not go together.
    """
    rank = max(t.rank for t in types)
    shape = []
    for d in range(rank):
        sizes = {t.shape[d - rank + t.rank] for t in types if d - rank + t.rank >= 0}
        sizes.discard(1)
        if len(sizes) > 1:
            raise ValueError(
                f"shapes {' and '.join(str(t.shape) for t in types)} do not broadcast"
            )
        shape.append(sizes.pop() if sizes else 1)
    return tuple(shape)


def one_dtype(types: Types) -> DType:
    """Return the element type that all operands share, ValueError if they do not."""
    found = {t.dtype for t in types}
    if len(found) != 1:
        raise ValueError(f"operands differ in dtype: {', '.join(t.dtype.value for t in types)}")
    return found.pop()


def result_layout(types: Types, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the layout of the first operand that has the whole shape."""
    return next((t.layout for t in types if t.shape == shape), None)


_UNARY = (sample(f32(0)), sample(f32()), sample(f32(3)), sample(f32(2, 3, 4)))
_BINARY = (
    sample(f32(0), f32(0)),
    sample(f32(), f32()),
    sample(f32(2, 3), f32(2, 3)),
    sample(f32(2, 3), f32(3)),
    sample(f32(2, 1, 4), f32(3, 1)),
)


def _positive(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return tuple(Sample(s.types, s.attrs, s.bound, positive=True) for s in samples)


def elementwise(  # noqa: PLR0913  the facts of an op
    name: str,
    operands: int,
    reference: Callable[..., np.ndarray],
    *,
    aten: tuple[str, ...] = (),
    floats: bool = False,
    positive: bool = False,
    cost: int = 1,
    cheap: bool = True,
) -> OpDef:
    """Return an op that computes each element alone and gives the dtype of its operands.

    Args:
        name: The op's name.
        operands: How many it takes.
        reference: A NumPy function of the operands.
        aten: Operations of PyTorch that it is.
        floats: Whether it is defined on floating point numbers only.
        positive: Whether samples must be above zero.
        cost: Floating point operations per element.
        cheap: Whether to compute it again costs less than to keep it.
    """

    def infer(types: Types, attrs: Attrs) -> TensorType:
        arity(types, operands)
        dtype = one_dtype(types)
        expect(
            dtype.is_float or not floats, f"takes floating point numbers, found {dtype.value}"
        )
        shape = broadcast(types)
        return TensorType(shape, dtype, result_layout(types, shape))

    def meaning(arrays: Arrays, attrs: Attrs) -> np.ndarray:
        dtype = np.asarray(arrays[0]).dtype
        with np.errstate(all="ignore"):
            return np.asarray(reference(*arrays), dtype=dtype)

    samples = _UNARY if operands == 1 else _BINARY
    return OpDef(
        name,
        OpKind.ELEMENTWISE,
        infer,
        meaning,
        flops=lambda types, result, attrs: cost * result.size,
        aten=aten,
        samples=_positive(samples) if positive else samples,
        cheap=cheap,
    )


def comparison(name: str, reference: Callable[..., np.ndarray], aten: tuple[str, ...]) -> OpDef:
    """Return a comparison of two operands of one dtype, whose result is b1."""

    def infer(types: Types, attrs: Attrs) -> TensorType:
        arity(types, 2)
        one_dtype(types)
        shape = broadcast(types)
        return TensorType(shape, DType.B1, result_layout(types, shape))

    return OpDef(
        name,
        OpKind.ELEMENTWISE,
        infer,
        lambda arrays, attrs: np.asarray(reference(*arrays), dtype=np.bool_),
        flops=lambda types, result, attrs: result.size,
        aten=aten,
        samples=(*_BINARY, sample(TensorType((5,), DType.I64), TensorType((5,), DType.I64))),
        cheap=True,
    )


def logical(
    name: str, operands: int, reference: Callable[..., np.ndarray], aten: tuple[str, ...]
) -> OpDef:
    """Return an op on b1 operands."""

    def infer(types: Types, attrs: Attrs) -> TensorType:
        arity(types, operands)
        expect(one_dtype(types) is DType.B1, "takes b1 operands")
        shape = broadcast(types)
        return TensorType(shape, DType.B1, result_layout(types, shape))

    bools = tuple(TensorType((2, 3), DType.B1) for _ in range(operands))
    return OpDef(
        name,
        OpKind.ELEMENTWISE,
        infer,
        lambda arrays, attrs: np.asarray(reference(*arrays), dtype=np.bool_),
        aten=aten,
        samples=(Sample(bools),),
        cheap=True,
    )


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes as sorted numbers from 0.

    Raises:
        ValueError: One is out of range, or given twice.
    """
    found = [a + rank if a < 0 else a for a in axes]
    expect(all(0 <= a < rank for a in found), f"axes {tuple(axes)} of a rank {rank} tensor")
    expect(len(set(found)) == len(found), f"axes {tuple(axes)} repeat")
    return tuple(sorted(found))


def reduction(
    name: str, reference: Callable[..., np.ndarray], aten: tuple[str, ...] = ()
) -> OpDef:
    """Return a reduction along `axes`, which stay as size 1 if `keepdims`."""

    def infer(types: Types, attrs: Attrs) -> TensorType:
        arity(types, 1)
        axes = normal_axes(attrs["axes"], types[0].rank)
        keep = bool(attrs["keepdims"])
        shape = tuple(
            1 if d in axes else n for d, n in enumerate(types[0].shape) if keep or d not in axes
        )
        return types[0].with_shape(shape)

    def meaning(arrays: Arrays, attrs: Attrs) -> np.ndarray:
        result = reference(
            arrays[0], axis=tuple(attrs["axes"]), keepdims=bool(attrs["keepdims"])
        )
        return np.asarray(result, dtype=arrays[0].dtype)

    return OpDef(
        name,
        OpKind.REDUCTION,
        infer,
        meaning,
        flops=lambda types, result, attrs: types[0].size,
        aten=aten,
        samples=(
            sample(f32(1), axes=(0,), keepdims=False),
            sample(f32(2, 3), axes=(), keepdims=False),
            sample(f32(2, 3, 4), axes=(0, 1), keepdims=False),
            sample(f32(2, 3, 40), axes=(2,), keepdims=True),
            sample(f32(5, 7, 3, 2), axes=(1, 3), keepdims=False),
            sample(f32(4, 6), axes=(0, 1), keepdims=False),
        ),
    )


def window_output(
    n: int, kernel: int, stride: int, pad: int, dilation: int, *, ceil: bool
) -> int:
    """Return how many windows of a convolution or pooling fit along one dimension.

    Args:
        n: Size of the input.
        kernel: Size of the window.
        stride: Step between windows.
        pad: Elements added on either side.
        dilation: Step inside the window.
        ceil: Count a last window that hangs over, if it begins inside the input or left pad.
    """
    room = n + 2 * pad - dilation * (kernel - 1) - 1
    expect(
        room >= 0, f"a window of {dilation * (kernel - 1) + 1} does not fit into {n + 2 * pad}"
    )
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= n + pad:
        count -= 1
    return count


def pairs(attrs: Attrs, *names: str) -> tuple[tuple[int, int], ...]:
    """Return attributes that are pairs of numbers, for height and width.

    Raises:
        ValueError: One is not a pair.
    """
    found = []
    for name in names:
        value = attrs[name]
        expect(isinstance(value, tuple) and len(value) == 2, f"{name} must be two numbers")
        found.append((int(value[0]), int(value[1])))
    return tuple(found)


def volume(shape: Sequence[int]) -> int:
    """Return the product of sizes."""
    return math.prod(shape)


def evaluate(node: Node, arrays: Arrays) -> np.ndarray:
    """Return a node's value, given those of its operands."""
    return ops.get(node.op).reference(arrays, node.attrs)


def flops_of(graph: Graph, node: Node) -> int:
    """Return the floating point operations of a node; a multiply-add counts two."""
    return ops.get(node.op).flops(graph.operand_types(node), node.type, node.attrs)
