"""Products of matrices. Transposes stay permutes: they are views."""

from __future__ import annotations

from pockc.frontend.importer.base import Importer, Number, Value, lower


@lower("aten.addmm.default", "aten.baddbmm.default")
def _addmm(
    b: Importer, c: Value, x: Value, y: Value, beta: Number = 1, alpha: Number = 1
) -> Value:
    product = b.emit("matmul", x, y)
    if alpha != 1:
        product = b.apply("mul", product, alpha)
    if beta == 0:
        return product
    return b.apply("add", product, c if beta == 1 else b.apply("mul", c, beta))


@lower("aten.mv.default")
def _mv(b: Importer, x: Value, v: Value) -> Value:
    column = b.reshape(v, (*b.shape(v), 1))
    return b.reshape(b.emit("matmul", x, column), b.out.shape)


@lower("aten.dot.default", "aten.vdot.default")
def _dot(b: Importer, x: Value, y: Value) -> Value:
    return b.reduce("reduce_sum", b.emit("mul", x, y), (0,))
