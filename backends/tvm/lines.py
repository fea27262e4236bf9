"""How the elements of one image dimension meet: of a convolution or of its input gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index


@dataclass(frozen=True, slots=True)
class Line:
    """One phase of one image dimension.

    Attributes:
        size: Size of the source.
        count: Number of results.
        out_step: Result q lies at `q * out_step + phase`.
        phase: See `out_step`.
        in_step: Result q meets, for tap t, element `q * in_step + offset + t * tap_step`.
        offset: See `in_step`.
        tap_step: See `in_step`.
        taps: Number of taps.
        first_tap: Tap t is the filter's element `first_tap + t * filter_step`.
        filter_step: See `first_tap`.
    """

    size: int
    count: int
    out_step: int
    phase: int
    in_step: int
    offset: int
    tap_step: int
    taps: int
    first_tap: int
    filter_step: int

    @property
    def low(self) -> int:
        """The first element that result 0 meets."""
        return self.offset + min(0, (self.taps - 1) * self.tap_step)

    @property
    def high(self) -> int:
        """The last element that result 0 meets."""
        return self.offset + max(0, (self.taps - 1) * self.tap_step)

    @property
    def inside(self) -> bool:
        """Whether no result meets anything outside the source."""
        return self.low >= 0 and (self.count - 1) * self.in_step + self.high < self.size


def forward_line(
    size: int, count: int, taps: int, stride: int, pad: int, dilation: int
) -> Line:
    """Return a dimension of a convolution."""
    return Line(size, count, 1, 0, stride, -pad, dilation, taps, 0, 1)


def gradient_lines(
    size: int, count: int, taps: int, stride: int, pad: int, dilation: int
) -> list[Line]:
    """Return the phases of a dimension of an input gradient.

    Args:
        size: Size of the image, whose gradient is the result.
        count: Size of the convolution's result, whose gradient is the source.
        taps: Size of the filter.
        stride: The convolution's step.
        pad: Its padding.
        dilation: Its step inside the filter.
    """
    step = stride // math.gcd(stride, dilation)
    lines = []
    for phase in range(min(stride, size)):
        results = -(-(size - phase) // stride)
        fitting = [t for t in range(taps) if (phase + pad - t * dilation) % stride == 0]
        first = fitting[0] if fitting else 0
        offset = (phase + pad - first * dilation) // stride
        lines.append(
            Line(
                count, results, stride, phase, 1, offset, -(step * dilation // stride),
                len(fitting), first, step,
            )
        )  # fmt: skip
    return lines


def place(
    n: Expr,
    channel: Expr,
    row: tuple[Line, Expr],
    column: tuple[Line, Expr],
    axes: tuple[int, int],
) -> Index:
    """Return the index of a result: of result `row` of one line and `column` of the other."""
    index: list[Expr] = [n, channel, 0, 0]
    for (line, q), axis in zip((row, column), axes, strict=True):
        index[axis] = q * line.out_step + line.phase if line.out_step > 1 else q
    return tuple(index)
