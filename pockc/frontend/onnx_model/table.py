"""The ONNX operators that are covered, each as a few calls of torch.

An operator's operands come as tensors, except those in `numbers`: shapes, axes and bounds,
which must be known when the model is traced and come as NumPy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pockc.errors import Problem, UserError

Known = np.ndarray
Value = Tensor | Known


@dataclass(frozen=True)
class Operator:
    """How an operator is run, and which of its operands are numbers."""

    run: Callable[..., Any]
    numbers: tuple[int, ...] = ()


OPERATORS: dict[str, Operator] = {}


def _covers(*names: str, numbers: tuple[int, ...] = ()) -> Callable[[Any], Any]:
    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS.update(dict.fromkeys(names, Operator(run, numbers)))
        return run

    return register


def _plain(**table: Callable[..., Any]) -> None:
    OPERATORS.update({name: Operator(run) for name, run in table.items()})


_plain(
    Abs=torch.abs,
    Add=torch.add,
    And=torch.logical_and,
    Ceil=lambda x: -torch.floor(-x),
    Cos=torch.cos,
    Div=lambda a, b: torch.div(a, b, rounding_mode=None if a.is_floating_point() else "floor"),
    Equal=torch.eq,
    Erf=torch.erf,
    Exp=torch.exp,
    Floor=torch.floor,
    Greater=torch.gt,
    GreaterOrEqual=torch.ge,
    Identity=lambda x: x,
    Less=torch.lt,
    LessOrEqual=torch.le,
    Log=torch.log,
    MatMul=torch.matmul,
    Mul=torch.mul,
    Neg=torch.neg,
    Not=torch.logical_not,
    Or=torch.logical_or,
    Pow=torch.pow,
    Reciprocal=torch.reciprocal,
    Relu=functional.relu,
    Sigmoid=torch.sigmoid,
    Sign=torch.sign,
    Sin=torch.sin,
    Softplus=functional.softplus,
    Sqrt=torch.sqrt,
    Sub=torch.sub,
    Tanh=torch.tanh,
    Where=torch.where,
    IsNaN=lambda x: x != x,  # noqa: PLR0124  the definition of NaN
    Mod=lambda a, b, fmod=0: torch.fmod(a, b) if fmod else torch.remainder(a, b),
    HardSwish=functional.hardswish,
    Mish=functional.mish,
    Dropout=lambda x, *_, **__: x,
    Elu=lambda x, alpha=1.0: functional.elu(x, alpha),
    LeakyRelu=lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    HardSigmoid=lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
    Gelu=lambda x, approximate="none": functional.gelu(x, approximate=approximate),
    PRelu=lambda x, slope: torch.where(x >= 0, x, slope * x),
    Softmax=lambda x, axis=-1: torch.softmax(x, axis),
    LogSoftmax=lambda x, axis=-1: torch.log_softmax(x, axis),
    Concat=lambda *xs, axis: torch.cat(xs, axis),
    Transpose=lambda x, perm=None: x.permute(perm or tuple(reversed(range(x.dim())))),
    GatherElements=lambda x, i, axis=0: torch.gather(x, axis, i.long()),
    GlobalAveragePool=lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
)


def _ints(value: Any) -> list[int]:  # noqa: ANN401  an array or a list
    return [int(n) for n in np.asarray(value).reshape(-1)]


@_covers("Max")
def _max(*xs: Tensor) -> Tensor:
    found = xs[0]
    for x in xs[1:]:
        found = torch.maximum(found, x)
    return found


@_covers("Min")
def _min(*xs: Tensor) -> Tensor:
    found = xs[0]
    for x in xs[1:]:
        found = torch.minimum(found, x)
    return found


@_covers("Sum")
def _sum(*xs: Tensor) -> Tensor:
    found = xs[0]
    for x in xs[1:]:
        found = found + x
    return found


@_covers("Clip", numbers=(1, 2))
def _clip(x: Tensor, low: Known | None = None, high: Known | None = None) -> Tensor:
    least, most = (None if n is None else float(n) for n in (low, high))
    return torch.clamp(x, least, most)


@_covers("Cast")
def _cast(x: Tensor, to: int, saturate: int = 1) -> Tensor:  # noqa: ARG001  for float8
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    return x.to(torch.from_numpy(np.zeros(0, dtype)).dtype)


@_covers("Gemm")
def _gemm(  # noqa: PLR0913, PLR0917  the operator's own attributes
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803  the operator's spelling
    transB: int = 0,  # noqa: N803
) -> Tensor:
    left, right = a.t() if transA else a, b
    if transB and alpha == beta == 1 and (c is None or c.dim() == 1):
        return functional.linear(left, b, c)
    made = left @ (right.t() if transB else right)
    made = made if alpha == 1 else alpha * made
    if c is None:
        return made
    return made + (c if beta == 1 else beta * c)


def _margins(pads: Sequence[int] | None, rank: int) -> tuple[list[int], bool]:
    """Return pads as ONNX gives them, and whether both ends have the same."""
    found = list(pads or [0] * (2 * rank))
    return found, found[:rank] == found[rank:]


def _padded(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    rank = len(pads) // 2
    # torch begins with the last dimension.
    flat = [n for d in reversed(range(rank)) for n in (pads[d], pads[rank + d])]
    return functional.pad(x, flat, value=value)


def _resolved(auto_pad: str, x: Tensor, kernel: Sequence[int], attrs: Any) -> Any:  # noqa: ANN401
    """Return explicit pads where the operator was told to find them."""
    if auto_pad in ("NOTSET", "VALID"):
        return attrs.get("pads")
    rank = len(kernel)
    strides = attrs.get("strides") or [1] * rank
    dilations = attrs.get("dilations") or [1] * rank
    begins, ends = [], []
    for d in range(rank):
        n, reach = x.shape[2 + d], dilations[d] * (kernel[d] - 1) + 1
        need = max(0, (math.ceil(n / strides[d]) - 1) * strides[d] + reach - n)
        small, large = need // 2, need - need // 2
        begins.append(large if auto_pad == "SAME_LOWER" else small)
        ends.append(small if auto_pad == "SAME_LOWER" else large)
    return [*begins, *ends]


@_covers("Conv")
def _conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    auto_pad: str = "NOTSET",
    **attrs: Any,  # noqa: ANN401
) -> Tensor:
    rank = w.dim() - 2
    pads, same = _margins(_resolved(auto_pad, x, w.shape[2:], attrs), rank)
    run = {1: functional.conv1d, 2: functional.conv2d}[rank]
    return run(
        x if same else _padded(x, pads),
        w,
        b,
        tuple(attrs.get("strides") or [1] * rank),
        tuple(pads[:rank]) if same else (0,) * rank,
        tuple(attrs.get("dilations") or [1] * rank),
        attrs.get("group", 1),
    )


@_covers("MaxPool")
def _max_pool(
    x: Tensor,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    **attrs: Any,  # noqa: ANN401
) -> Tensor:
    pads, same = _margins(_resolved(auto_pad, x, kernel_shape, attrs), 2)
    return functional.max_pool2d(
        x if same else _padded(x, pads, -math.inf),
        tuple(kernel_shape),
        tuple(attrs.get("strides") or [1, 1]),
        tuple(pads[:2]) if same else 0,
        tuple(attrs.get("dilations") or [1, 1]),
        ceil_mode=bool(attrs.get("ceil_mode", 0)),
    )


@_covers("AveragePool")
def _average_pool(
    x: Tensor,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    **attrs: Any,  # noqa: ANN401
) -> Tensor:
    pads, same = _margins(_resolved(auto_pad, x, kernel_shape, attrs), 2)
    count = bool(attrs.get("count_include_pad", 0))
    return functional.avg_pool2d(
        x if same else _padded(x, pads),
        tuple(kernel_shape),
        tuple(attrs.get("strides") or [1, 1]),
        tuple(pads[:2]) if same else 0,
        ceil_mode=bool(attrs.get("ceil_mode", 0)),
        count_include_pad=count or not same,
    )


@_covers("BatchNormalization")
def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float = 1e-5,
    **_: Any,  # noqa: ANN401
) -> Tensor:
    return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)


@_covers("LayerNormalization")
def _layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    **_: Any,  # noqa: ANN401
) -> Tensor:
    return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _reduced(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(
        x: Tensor,
        given: Known | None = None,
        axes: Sequence[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        along = _ints(given) if given is not None else list(axes or ())
        if not along and noop_with_empty_axes:
            return x
        return run(x, along or list(range(x.dim())), keepdim=bool(keepdims))

    return reduce


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim).sqrt(),
    "ReduceSumSquare": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim),
}
for _name, _run in _REDUCTIONS.items():
    OPERATORS[_name] = Operator(_reduced(_run), numbers=(1,))


@_covers("ArgMax")
def _argmax(x: Tensor, axis: int = 0, keepdims: int = 1, **_: Any) -> Tensor:  # noqa: ANN401
    return torch.argmax(x, axis, keepdim=bool(keepdims))


@_covers("Reshape", numbers=(1,))
def _reshape(x: Tensor, shape: Known, allowzero: int = 0) -> Tensor:
    sizes = _ints(shape)
    if not allowzero:
        sizes = [x.shape[d] if n == 0 else n for d, n in enumerate(sizes)]
    return x.reshape(sizes)


@_covers("Flatten")
def _flatten(x: Tensor, axis: int = 1) -> Tensor:
    at = axis % x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))


@_covers("Squeeze", numbers=(1,))
def _squeeze(x: Tensor, given: Known | None = None, axes: Sequence[int] = ()) -> Tensor:
    along = list(axes) if given is None else _ints(given)
    return x.squeeze(tuple(along)) if along else x.squeeze()


@_covers("Unsqueeze", numbers=(1,))
def _unsqueeze(x: Tensor, given: Known | None = None, axes: Sequence[int] = ()) -> Tensor:
    along = list(axes) if given is None else _ints(given)
    rank = x.dim() + len(along)
    for axis in sorted(a % rank for a in along):
        x = x.unsqueeze(axis)
    return x


@_covers("Expand", numbers=(1,))
def _expand(x: Tensor, shape: Known) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(_ints(shape))))


@_covers("Tile", numbers=(1,))
def _tile(x: Tensor, repeats: Known) -> Tensor:
    return x.repeat(_ints(repeats))


@_covers("Slice", numbers=(1, 2, 3, 4))
def _slice(
    x: Tensor,
    starts: Known,
    ends: Known,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Tensor:
    begins, stops = _ints(starts), _ints(ends)
    along = list(range(len(begins))) if axes is None else _ints(axes)
    strides = [1] * len(begins) if steps is None else _ints(steps)
    for axis, begin, stop, step in zip(along, begins, stops, strides, strict=True):
        if step < 0:  # torch has no such slices; "to the very beginning" is a huge number
            last = stop if stop >= -x.shape[axis] else None
            picked = np.arange(x.shape[axis])[begin:last:step]
            x = x.index_select(axis, torch.from_numpy(picked.copy()))
            continue
        cut = [slice(None)] * x.dim()
        cut[axis] = slice(begin, stop, step)
        x = x[tuple(cut)]
    return x


@_covers("Split", numbers=(1,))
def _split(
    x: Tensor, given: Known | None = None, axis: int = 0, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    if given is not None:
        return tuple(torch.split(x, _ints(given), axis))
    return tuple(torch.split(x, math.ceil(x.shape[axis] / (num_outputs or 2)), axis))


@_covers("Gather")
def _gather(x: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    at = axis % x.dim()
    if index.dim() == 0:
        return x.index_select(at, index.long().reshape(1)).squeeze(at)
    if at == 0 and x.dim() == 2:
        return functional.embedding(index.long(), x)
    flat = x.index_select(at, index.long().reshape(-1))
    return flat.reshape(*x.shape[:at], *index.shape, *x.shape[at + 1 :])


@_covers("Pad", numbers=(1, 2, 3))
def _pad(
    x: Tensor,
    pads: Known,
    value: Known | None = None,
    axes: Known | None = None,
    mode: str = "constant",
) -> Tensor:
    given = _ints(pads)
    if axes is not None:
        along, whole = _ints(axes), [0] * (2 * x.dim())
        for i, axis in enumerate(along):
            whole[axis % x.dim()] = given[i]
            whole[x.dim() + axis % x.dim()] = given[len(along) + i]
        given = whole
    if mode != "constant":
        what = f"Pad with mode '{mode}' is not covered"
        raise UserError(Problem("onnx-operator", what, fix="export with constant padding"))
    return _padded(x, given, 0.0 if value is None else float(value))


@_covers("CumSum", numbers=(1,))
def _cumsum(x: Tensor, axis: Known) -> Tensor:
    return torch.cumsum(x, int(axis))


@_covers("Trilu", numbers=(1,))
def _trilu(x: Tensor, k: Known | None = None, upper: int = 1) -> Tensor:
    shift = 0 if k is None else int(k)
    return torch.triu(x, shift) if upper else torch.tril(x, shift)


def _depends(*_: Any, **__: Any) -> Tensor:  # noqa: ANN401
    what = "a shape or a range depends on data"
    raise UserError(Problem("onnx-shape", what, fix="export with fixed sizes"))


# What these are given is known in every model of fixed shapes: they run with NumPy.
_plain(**dict.fromkeys(("ConstantOfShape", "Range", "Shape", "Size"), _depends))
