"""What convolutions and poolings share: images (N, C, H, W), filters (K, C / groups, R, S)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pockc.ir.attrs import Attrs, AttrValue
from pockc.ir.types import TensorType, f32
from pockc.ops.base import expect, pairs, window_output


def conv_shape(x: TensorType, w: TensorType, attrs: Attrs) -> tuple[int, int, int, int]:
    """Return the shape (N, K, OH, OW) of a convolution.

    Raises:
        ValueError: The operands do not fit each other.
    """
    expect(
        x.rank == 4 and w.rank == 4, f"takes images and filters of rank 4, found {x} and {w}"
    )
    groups = attrs["groups"]
    n, c, h, wd = x.shape
    k, c_group, r, s = w.shape
    expect(c == c_group * groups, f"{c} channels in, the weight takes {c_group} x {groups}")
    expect(k % groups == 0, f"{k} channels out do not divide into {groups} groups")
    (sh, sw), (ph, pw), (dh, dw) = pairs(attrs, "stride", "padding", "dilation")
    oh = window_output(h, r, sh, ph, dh, ceil=False)
    return n, k, oh, window_output(wd, s, sw, pw, dw, ceil=False)


def pool_shape(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, int, int, int]:
    """Return the shape (N, C, OH, OW) of a pooling.

    Raises:
        ValueError: The window does not fit the images.
    """
    expect(len(shape) == 4, f"takes images of rank 4, found shape {shape}")
    n, c, h, w = shape
    (kh, kw), (sh, sw), (ph, pw) = pairs(attrs, "kernel", "stride", "padding")
    dh, dw = pairs(attrs, "dilation")[0] if "dilation" in attrs else (1, 1)
    expect(2 * ph <= kh and 2 * pw <= kw, "padding is more than half the window")
    ceil = bool(attrs["ceil_mode"])
    oh = window_output(h, kh, sh, ph, dh, ceil=ceil)
    return n, c, oh, window_output(w, kw, sw, pw, dw, ceil=ceil)


def padded(x: np.ndarray, out: tuple[int, ...], attrs: Attrs, fill: float) -> np.ndarray:
    """Return images padded so that all windows, also those that hang over, lie inside."""
    (kh, kw), (sh, sw), (ph, pw) = (
        _window(attrs),
        _pair(attrs, "stride"),
        _pair(attrs, "padding"),
    )
    dh, dw = _dilation(attrs)
    need_h = (out[0] - 1) * sh + dh * (kh - 1) + 1
    need_w = (out[1] - 1) * sw + dw * (kw - 1) + 1
    h, w = x.shape[2:]
    right = (max(0, need_h - h - ph), max(0, need_w - w - pw))
    return np.pad(x, ((0, 0), (0, 0), (ph, right[0]), (pw, right[1])), constant_values=fill)


def taps(out: tuple[int, ...], attrs: Attrs) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield (r, s, rows, columns): where padded images meet tap (r, s) of every window."""
    (kh, kw), (sh, sw) = _window(attrs), _pair(attrs, "stride")
    dh, dw = _dilation(attrs)
    for r in range(kh):
        for s in range(kw):
            rows = slice(r * dh, r * dh + (out[0] - 1) * sh + 1, sh)
            columns = slice(s * dw, s * dw + (out[1] - 1) * sw + 1, sw)
            yield r, s, rows, columns


def _pair(attrs: Attrs, name: str) -> tuple[int, int]:
    return pairs(attrs, name)[0]


def _window(attrs: Attrs) -> tuple[int, int]:
    return _pair(attrs, "kernel")


def _dilation(attrs: Attrs) -> tuple[int, int]:
    return _pair(attrs, "dilation") if "dilation" in attrs else (1, 1)


def inside(images: np.ndarray, size: tuple[int, ...], attrs: Attrs) -> np.ndarray:
    """Return padded images without their padding."""
    ph, pw = _pair(attrs, "padding")
    return np.ascontiguousarray(images[:, :, ph : ph + size[0], pw : pw + size[1]])


def grouped(images: np.ndarray, groups: int) -> np.ndarray:
    """Return images (N, C, H, W) as (N, groups, C / groups, H * W)."""
    n, c, h, w = images.shape
    return images.reshape(n, groups, c // groups, h * w)


def multiply(filters: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return filters (G, K, C) times grouped images (N, G, C, P)."""
    if filters.shape[1:] == (1, 1):  # depthwise: BLAS is slow on 1 x 1 matrices
        return np.asarray(filters * seen)
    return np.asarray(np.matmul(filters, seen))


def pool_counts(size: tuple[int, ...], out: tuple[int, ...], attrs: Attrs) -> np.ndarray:
    """Return by how much each window's sum is divided, of shape (OH, OW).

    A window that hangs over beyond the padding is counted without what hangs over, as in
    PyTorch; the padding counts if `count_include_pad`.
    """
    sides = zip(
        size, out, _window(attrs), _pair(attrs, "stride"), _pair(attrs, "padding"), strict=True
    )
    lines = []
    for n, windows, kernel, stride, pad in sides:
        start = np.arange(windows) * stride - pad
        stop = np.minimum(start + kernel, n + pad)
        if not attrs["count_include_pad"]:
            start, stop = np.maximum(start, 0), np.minimum(stop, n)
        lines.append(stop - start)
    return np.asarray(np.multiply.outer(*lines))


def _conv(
    stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> dict[str, AttrValue]:
    return {
        "stride": (stride, stride),
        "padding": (padding, padding),
        "dilation": (dilation, dilation),
        "groups": groups,
    }


CONV_SAMPLES: tuple[tuple[TensorType, TensorType, dict[str, AttrValue]], ...] = (
    (f32(1, 1, 1, 1), f32(1, 1, 1, 1), _conv()),
    (f32(2, 3, 7, 5), f32(4, 3, 1, 1), _conv()),
    (f32(2, 5, 8, 8), f32(6, 5, 3, 3), _conv(padding=1)),
    (f32(1, 3, 9, 10), f32(4, 3, 3, 3), _conv(stride=2, padding=1)),
    (f32(1, 4, 9, 9), f32(4, 4, 3, 3), _conv(dilation=2, padding=2)),
    (f32(2, 6, 7, 7), f32(4, 3, 3, 3), _conv(padding=1, groups=2)),
    (f32(2, 20, 7, 7), f32(20, 1, 3, 3), _conv(padding=1, groups=20)),
    (f32(1, 6, 9, 8), f32(6, 1, 5, 5), _conv(stride=2, padding=2, groups=6)),
    (f32(1, 4, 6, 1), f32(2, 4, 3, 1), {**_conv(), "padding": (1, 0), "stride": (2, 1)}),
    (f32(1, 4, 8, 8), f32(6, 4, 2, 2), _conv(stride=2)),
)


def result_of(x: TensorType, w: TensorType, attrs: dict[str, AttrValue]) -> TensorType:
    """Return the type of the convolution of two operands."""
    return f32(*conv_shape(x, w, Attrs(attrs)))


def _pool(
    kernel: int, stride: int, padding: int = 0, *, ceil: bool = False
) -> dict[str, AttrValue]:
    return {
        "kernel": (kernel, kernel),
        "stride": (stride, stride),
        "padding": (padding, padding),
        "ceil_mode": ceil,
    }


MAX_POOL_SAMPLES: tuple[tuple[TensorType, dict[str, AttrValue]], ...] = (
    (f32(1, 1, 2, 2), {**_pool(2, 2), "dilation": (1, 1)}),
    (f32(2, 3, 9, 8), {**_pool(3, 2, 1), "dilation": (1, 1)}),
    (f32(2, 3, 8, 8), {**_pool(3, 2, ceil=True), "dilation": (1, 1)}),
    (f32(1, 2, 9, 9), {**_pool(2, 1), "dilation": (2, 2)}),
)
AVG_POOL_SAMPLES: tuple[tuple[TensorType, dict[str, AttrValue]], ...] = (
    (f32(1, 1, 2, 2), {**_pool(2, 2), "count_include_pad": True}),
    (f32(2, 3, 9, 8), {**_pool(3, 2, 1), "count_include_pad": True}),
    (f32(2, 3, 9, 8), {**_pool(3, 2, 1), "count_include_pad": False}),
    (f32(2, 3, 8, 8), {**_pool(3, 2, ceil=True), "count_include_pad": True}),
)
