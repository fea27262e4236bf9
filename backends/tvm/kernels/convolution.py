"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from pockc.backends.tvm.builder import Builder, Sink, lower
from pockc.backends.tvm.kernels.reduce import monoid
from pockc.backends.tvm.kernels.window import Window, gather, inside, pair
from pockc.backends.tvm.tir import Expr
from pockc.backends.tvm.values import Index, Scope, Source
from pockc.ir.graph import Node


@lower("conv2d")
def _conv2d(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, w = operands
    a = node.attrs
    (sh, sw), (ph, pw), (dh, dw) = pair(a, "stride"), pair(a, "padding"), pair(a, "dilation")
    k, c, r, s = w.type.shape
    per_group = k // a["groups"]

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        n, o, h, v = index
        i, j = h * sh + ks[1] * dh - ph, v * sw + ks[2] * dw - pw
        shape = x.type.shape
        tests = ([i >= 0, i < shape[2]] if ph else []) + ([j >= 0, j < shape[3]] if pw else [])
        guard = inside(scope, *tests)
        channel = ks[0] if a["groups"] == 1 else tirx.floordiv(o, per_group) * c + ks[0]
        value = x.at(scope, (n, channel, i, j), guard)
        return value * w.at(scope, (o, *ks))

    gather(b, sink, Window((c, r, s), monoid("reduce_sum", node.type.dtype), term))


@lower("conv2d_grad_input")
def _conv2d_grad_input(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    dy, w = operands
    a = node.attrs
    (sh, sw), (ph, pw), (dh, dw) = pair(a, "stride"), pair(a, "padding"), pair(a, "dilation")
    k, c, r, s = w.type.shape
    per_group = k // a["groups"]

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        n, channel, i, j = index
        o, q, t = ks
        u, v = i + ph - q * dh, j + pw - t * dw
        h, g = (tirx.floordiv(u, sh) if sh > 1 else u), (tirx.floordiv(v, sw) if sw > 1 else v)
        tests = [u >= 0, h < dy.type.shape[2], v >= 0, g < dy.type.shape[3]]
        tests += [tirx.EQ(h * sh, u)] if sh > 1 else []
        tests += [tirx.EQ(g * sw, v)] if sw > 1 else []
        guard = inside(scope, *tests)
        out, inner = o, channel
        if a["groups"] > 1:
            out = tirx.floordiv(channel, c) * per_group + o
            inner = tirx.floormod(channel, c)
        return dy.at(scope, (n, out, h, g), guard) * w.at(scope, (out, inner, q, t))

    gather(b, sink, Window((per_group, r, s), monoid("reduce_sum", node.type.dtype), term))


@lower("conv2d_grad_weight")
def _conv2d_grad_weight(b: Builder, node: Node, operands: Sequence[Source], sink: Sink) -> None:
    x, dy = operands
    a = node.attrs
    (sh, sw), (ph, pw), (dh, dw) = pair(a, "stride"), pair(a, "padding"), pair(a, "dilation")
    k, c, _, _ = node.type.shape
    per_group = k // a["groups"]
    n, _, oh, ow = dy.type.shape

    def term(scope: Scope, index: Index, ks: Sequence[Expr]) -> Expr:
        o, inner, q, t = index
        i, j = ks[1] * sh + q * dh - ph, ks[2] * sw + t * dw - pw
        tests: list[Expr] = [i >= 0, i < x.type.shape[2], j >= 0, j < x.type.shape[3]]
        guard = inside(scope, *tests)
        channel = inner if a["groups"] == 1 else tirx.floordiv(o, per_group) * c + inner
        value = x.at(scope, (ks[0], channel, i, j), guard)
        return value * dy.at(scope, (ks[0], o, ks[1], ks[2]))

    gather(b, sink, Window((n, oh, ow), monoid("reduce_sum", node.type.dtype), term))
