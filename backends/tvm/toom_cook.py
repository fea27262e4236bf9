"""Short correlations with few multiplications, by evaluating polynomials at points.

`m` results of a filter with `r` taps are `A^T [(G g) * (B^T d)]`: filter and data are evaluated
at `m + r - 2` points and at infinity, multiplied there, and the result is interpolated (Toom,
Cook; Winograd, Arithmetic Complexity of Computations, 1980). In two dimensions each matrix is
applied to columns and then to rows: F(m x m, r x r) of Lavin & Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt

from pockc.backends.tvm.tile import spread
from pockc.backends.tvm.tir import Code, Expr
from pockc.backends.tvm.values import number
from pockc.ir.types import DType

Matrix = tuple[tuple[float, ...], ...]
Values = Sequence[Expr]


@dataclass(frozen=True)
class Scheme:
    """F(m, r) at some points.

    Attributes:
        m: Number of results.
        r: Number of taps.
        points: The finite points: 0, then pairs of a point and its negative.
    """

    m: int
    r: int
    points: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of products, and of data that they take."""
        return self.m + self.r - 1

    @cached_property
    def data(self) -> Matrix:
        """B^T (n, n): the products of all `x - point`, each without its own; then of all."""
        rows = [_coefficients(self._others(i), self.n) for i in range(self.n - 1)]
        return (*rows, _coefficients(self.points, self.n))

    @cached_property
    def filter(self) -> Matrix:
        """G (n, r): powers of each point, divided by what the rows of B^T are too large."""
        rows = []
        for i, p in enumerate(self.points):
            size = prod(p - q for q in self._others(i))
            rows.append(tuple(p**k / size for k in range(self.r)))
        return (*rows, (*(0.0,) * (self.r - 1), 1.0))

    @cached_property
    def result(self) -> Matrix:
        """A (n, m): powers of each point; A^T is what is applied."""
        rows = [tuple(p**k for k in range(self.m)) for p in self.points]
        return (*rows, (*(0.0,) * (self.m - 1), 1.0))

    def _others(self, i: int) -> tuple[float, ...]:
        return self.points[:i] + self.points[i + 1 :]


F2 = Scheme(2, 3, (0.0, 1.0, -1.0))
F4 = Scheme(4, 3, (0.0, sqrt(0.5), -sqrt(0.5), sqrt(2.0), -sqrt(2.0)))
"""With these points the largest error is a third of that with the usual 0, 1, -1, 2, -2."""


def _coefficients(roots: Sequence[float], size: int) -> tuple[float, ...]:
    """Return the polynomial with leading coefficient 1 and some roots, lowest power first."""
    found = [1.0]
    for root in roots:
        shifted = [0.0, *found]
        found = [a - root * c for a, c in zip(shifted, [*found, 0.0], strict=True)]
    # Roots come in pairs p, -p; what is left of their sums is rounding.
    clean = [round(c, 12) for c in found]
    return (*clean, *(0.0,) * (size - len(clean)))


@dataclass(frozen=True)
class Transform:
    """Writes products of a small matrix and vectors of registers.

    Attributes:
        code: Where to.
        dtype: Element type.
        lanes: Width of the vectors.
    """

    code: Code
    dtype: DType
    lanes: int

    def hold(self, value: Expr) -> Expr:
        """Name a value so that TVM does not look into it: LLVM makes a register of it."""
        place = self.code.local(self.lanes, self.dtype)
        zero = self.code.const(0)
        self.code.emit(place.store(zero, value, self.lanes))
        return self.code.bind(place.load(zero, self.lanes))

    def both_ways(
        self,
        one: Callable[[Matrix, Values], list[Expr]],
        matrix: Matrix,
        load: Callable[[int, int], Expr],
        size: int,
    ) -> list[list[Expr]]:
        """Return a transform of the columns and then the rows of `size` x `size` values."""
        columns = []
        for x in range(size):
            values = [self.code.bind(load(y, x)) for y in range(size)]
            columns.append([self.hold(v) for v in one(matrix, values)])
        return [one(matrix, row) for row in zip(*columns, strict=True)]

    def evaluated(self, matrix: Matrix, values: Values) -> list[Expr]:
        """Return the matrix times a vector; rows of p and -p share their halves."""
        found: list[Expr] = []
        while len(found) < len(matrix):
            row = matrix[len(found)]
            following = matrix[len(found) + 1] if len(found) + 1 < len(matrix) else ()
            even, odd = (_every_other(row, first) for first in (0, 1))
            if any(even) and any(odd) and _mirrored(row, following):
                a, c = self.hold(self._sum(even, values)), self.hold(self._sum(odd, values))
                found += [a + c, a - c]
            else:
                found.append(self._sum(row, values))
        return found

    def interpolated(self, matrix: Matrix, values: Values) -> list[Expr]:
        """Return the transposed matrix times a vector; rows of p and -p share sums."""
        terms: list[tuple[tuple[float, ...], Expr, Expr]] = []
        at = 0
        while at < len(matrix):
            row = matrix[at]
            if at + 1 < len(matrix) and any(row[1:]) and _mirrored(row, matrix[at + 1]):
                a, c = values[at], values[at + 1]
                terms.append((row, self.hold(a + c), self.hold(a - c)))
                at += 2
            else:
                terms.append((row, values[at], values[at]))
                at += 1
        return [
            self._sum([row[k] for row, _, _ in terms], [(e, o)[k % 2] for _, e, o in terms])
            for k in range(len(matrix[0]))
        ]

    def _sum(self, row: Sequence[float], values: Values) -> Expr:
        """Return the sum of some values, each times its number."""
        # What is added as it is comes first, so that the others are multiplied and added.
        terms = sorted(
            ((c, v) for c, v in zip(row, values, strict=True) if c),
            key=lambda t: abs(t[0]) != 1,
        )
        total: Expr = None
        for factor, value in terms:
            if total is None:
                total = value if factor == 1 else value * self._number(factor)
            elif abs(factor) == 1:
                total = total + value if factor == 1 else total - value
            else:
                total = total + value * self._number(factor)
        return total

    def _number(self, value: float) -> Expr:
        return spread(number(value, self.dtype), self.lanes)


def _every_other(row: Sequence[float], first: int) -> list[float]:
    return [c if k % 2 == first else 0.0 for k, c in enumerate(row)]


def _mirrored(row: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether a row is another one at the negative point, up to a common sign."""
    return len(row) == len(other) and all(
        a == (c if k % 2 == 0 else -c) for k, (a, c) in enumerate(zip(row, other, strict=True))
    )
