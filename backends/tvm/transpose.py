"""Copies that turn rows into columns, by whole vectors.

A block of as many rows as a vector has lanes is read along memory, turned in registers by
shuffles of pairs (log2 steps), and written along memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.tir import Expr, Memory


def transposed_copy(
    b: Builder,
    source: Memory,
    rows: tuple[Expr, int],
    target: Memory,
    columns: tuple[Expr, int],
    size: tuple[int, int],
) -> None:
    """Copy `target[c0 + k * width + j] = source[r0 + j * step + k]`.

    Args:
        b: The kernel.
        source: What to read.
        rows: Where row 0 begins, and by how much rows are apart.
        target: What to write.
        columns: Where column 0 begins, and by how much columns are apart.
        size: Number of rows j and of columns k.
    """
    code = b.code
    (r0, step), (c0, width), (height, length) = rows, columns, size
    lanes = b.lanes(source.dtype)
    whole, rest = length // lanes, length % lanes
    blocks, odd = divmod(height, lanes)

    def one_by_one(j: Expr, k: Expr) -> None:
        code.emit(target.store(c0 + k * width + j, source.load(r0 + j * step + k)))

    with code.loop(blocks) as jo:
        if blocks:
            j0 = jo * lanes
            with code.loop(whole) as ko:
                if whole:
                    k0 = ko * lanes
                    read = [
                        code.bind(source.load(r0 + (j0 + j) * step + k0, lanes))
                        for j in range(lanes)
                    ]
                    for k, vector in enumerate(_turn(b, read)):
                        code.emit(target.store(c0 + (k0 + k) * width + j0, vector, lanes))
            with code.loop(rest) as k, code.loop(lanes) as j:
                if rest:
                    one_by_one(j0 + j, whole * lanes + k)
    if odd:
        with code.loop(length) as k, code.loop(odd) as j:
            one_by_one(blocks * lanes + j, k)


def _turn(b: Builder, rows: Sequence[Expr]) -> list[Expr]:
    """Return the columns of a square of vectors.

    Step `half` exchanges the upper right and the lower left quarter of every square of side
    2 * half; after all steps the whole is transposed.
    """
    n = len(rows)
    rows = list(rows)
    half = n // 2
    while half:
        for i in range(n):
            if i & half:
                continue
            upper, lower = rows[i], rows[i + half]
            first = [k + n - half if k & half else k for k in range(n)]
            second = [k + n if k & half else k + half for k in range(n)]
            rows[i] = b.code.bind(tirx.Shuffle([upper, lower], first))
            rows[i + half] = b.code.bind(tirx.Shuffle([upper, lower], second))
        half //= 2
    return rows
