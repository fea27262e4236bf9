"""Convolutions of one and two dimensions, plain and transposed, and their gradients.

A gradient is three nodes, one for each operand, so that a frozen layer can lose what it does
not need. A transposed convolution is the input gradient of a plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pockc.frontend.importer.base import Importer, Unsupported, Value, lower


@dataclass(frozen=True)
class _Form:
    """The attributes of a convolution, for height and width."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def attrs(self) -> dict[str, tuple[int, int] | int]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }


def _pair(values: Sequence[int], fill: int, rank: int) -> tuple[int, int]:
    """Return a number per spatial dimension, that of a missing height before it."""
    several = list(values) * rank if len(values) == 1 else list(values)
    return (fill, several[0]) if rank == 1 else (several[0], several[1])


def _form(
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    rank: int,
) -> _Form:
    return _Form(
        _pair(stride, 1, rank), _pair(padding, 0, rank), _pair(dilation, 1, rank), groups
    )


def _images(b: Importer, x: Value) -> Value:
    """Return (N, C, L) as (N, C, 1, L)."""
    shape = b.shape(x)
    return x if len(shape) == 4 else b.reshape(x, (*shape[:2], 1, shape[2]))


def _image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])


def _spatial(b: Importer, x: Value) -> int:
    rank = len(b.shape(x)) - 2
    if rank not in (1, 2):
        raise Unsupported(f"with {rank} spatial dimensions is not supported (1 and 2 are)")
    return rank


def _add_bias(b: Importer, y: Value, bias: Value | None) -> Value:
    if bias is None:
        return y
    return b.emit("add", y, b.reshape(bias, (1, b.shape(bias)[0], 1, 1)))


@lower("aten.convolution.default")
def _convolution(
    b: Importer,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],  # noqa: ARG001  the result's shape says it
    groups: int,
) -> Value:
    form = _form(stride, padding, dilation, groups, _spatial(b, x))
    images, kernel = _images(b, x), _images(b, weight)
    if transposed:
        shape = _image_shape(b.out.shape)
        y = b.emit("conv2d_grad_input", images, kernel, input_shape=shape, **form.attrs)
    else:
        y = b.emit("conv2d", images, kernel, **form.attrs)
    return b.reshape(_add_bias(b, y, bias), b.out.shape)


@lower("aten.convolution_backward.default")
def _convolution_backward(
    b: Importer,
    dy: Value,
    x: Value,
    weight: Value,
    bias_sizes: Sequence[int] | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],  # noqa: ARG001
    groups: int,
    mask: Sequence[bool],
) -> tuple[Value | None, ...]:
    form = _form(stride, padding, dilation, groups, _spatial(b, x))
    d, images, kernel = _images(b, dy), _images(b, x), _images(b, weight)
    dx = dw = None
    if mask[0] and transposed:
        dx = b.emit("conv2d", d, kernel, **form.attrs)
    elif mask[0]:
        dx = b.emit("conv2d_grad_input", d, kernel, input_shape=b.shape(images), **form.attrs)
    if mask[1]:
        pair = (d, images) if transposed else (images, d)
        dw = b.emit("conv2d_grad_weight", *pair, weight_shape=b.shape(kernel), **form.attrs)
    db = b.reduce("reduce_sum", d, (0, 2, 3)) if mask[2] else None
    return (
        None if dx is None else b.reshape(dx, b.shape(x)),
        None if dw is None else b.reshape(dw, b.shape(weight)),
        db,
    )
