"""Register tiles: rows times a few vectors of results, in registers along the reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tvm import tirx

from pockc.backends.tvm.builder import Builder
from pockc.backends.tvm.targets import Target
from pockc.backends.tvm.tir import Code, Expr, Memory
from pockc.backends.tvm.values import Scope, number
from pockc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of a tile, side by side.

    Attributes:
        lanes: Width of each as it is computed.
        valid: How many elements of them all are results; the rest is padding.
    """

    lanes: tuple[int, ...]
    valid: int

    @property
    def width(self) -> int:
        """Elements of all of them, padding included."""
        return sum(self.lanes)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each begins."""
        return tuple(sum(self.lanes[:v]) for v in range(len(self.lanes)))


@dataclass(frozen=True, slots=True)
class Shape:
    """The best tile of a target: `vectors` side by side, up to `rows` rows."""

    rows: int
    vectors: int
    lanes: int


def best_shape(b: Builder, dtype: DType, columns: int) -> Shape:
    """Return the tile for a number of columns: the schedule's, or what `_usual_shape` says."""
    return _chosen_shape(b, _usual_shape(b.target, dtype, columns), columns)


def _chosen_shape(b: Builder, usual: Shape, columns: int) -> Shape:
    """Return the schedule's shape, if it has one."""
    widest = min(6 if b.target.is_aarch64 else 4, -(-columns // usual.lanes))
    vectors = b.choose("vectors", usual.vectors, range(1, widest + 1))
    rows = usual.rows
    if vectors != usual.vectors:
        rows = _most_rows(b.target, vectors)
    options = (r for r in (rows // 2, 2 * rows // 3, rows - 2) if r >= 1)
    return Shape(b.choose("rows", rows, options), vectors, usual.lanes)


def _most_rows(target: Target, vectors: int) -> int:
    is_arm, many = target.arch != "x86_64", target.vector_registers >= 32
    spare = 2 + vectors + (1 if is_arm else 0) + (4 if target.loads_ahead and many else 0)
    return max(1, min((target.vector_registers - spare) // vectors, 14))


def _usual_shape(target: Target, dtype: DType, columns: int) -> Shape:
    """Return the tile for a number of columns by rule.

    All registers but one vector of the right operand and a few spare ones hold sums; a row
    costs one broadcast of the left operand, which x86 folds into the multiplication. Where
    LLVM loads ahead, for processors that run in order, a row less leaves it the registers
    that it would otherwise spill: README.md has the counts.
    """
    lanes = max(1, target.vector_floats * 4 // max(dtype.nbytes, 4))
    is_arm, many = target.arch != "x86_64", target.vector_registers >= 32
    wide = 4 if is_arm and many else 2
    vectors = max(1, min(wide, -(-columns // lanes)))
    return Shape(_most_rows(target, vectors), vectors, lanes)


def product_shape(b: Builder, dtype: DType, columns: int, matrices: int, threads: int) -> Shape:
    """Return the tile of a matrix product: the schedule's, or what `_usual_product` says."""
    usual = _usual_product(b.target, dtype, columns, matrices, threads)
    return _chosen_shape(b, usual, columns)


def _usual_product(
    target: Target, dtype: DType, columns: int, matrices: int, threads: int
) -> Shape:
    """Return the tile of a matrix product by rule.

    Wide tiles read the left operand less often, narrow ones leave less of the last panel
    unused and divide more evenly between the threads: the choice with the fewest vectors for
    the busiest thread.
    """
    usual = _usual_shape(target, dtype, columns)
    if target.is_aarch64 or target.vector_registers < 32:
        return usual

    def cost(vectors: int) -> tuple[float, int]:
        panels = -(-columns // (usual.lanes * vectors))
        busiest = -(-matrices * panels // threads) * vectors
        total = matrices * -(-columns // usual.lanes) / threads
        # Measured: three vectors of nine rows are fastest, six rows of four next.
        return max(float(busiest), total) * {2: 1.02, 3: 1.0, 4: 1.005}[vectors], -vectors

    widest = -(-columns // usual.lanes)
    vectors = min((v for v in (2, 3, 4) if v <= widest), key=cost, default=1)
    return Shape(_most_rows(target, vectors), vectors, usual.lanes)


def task_rows(images: int, rows: int, most: int, threads: int) -> int:
    """Return how many rows of an image a task has, at most `most`: so that tasks divide evenly.

    Heights that divide the rows come first, if they are not much smaller.
    """

    def even(height: int) -> bool:
        tasks = images * -(-rows // height)
        return tasks % threads == 0 or tasks >= 8 * threads

    fitting = [h for h in range(most, 0, -1) if even(h)]
    divisors = [h for h in fitting if rows % h == 0 and 2 * h >= fitting[0]]
    return (divisors or fitting or [1])[0]


def near(length: int, most: int) -> Iterator[int]:
    """Return shorter and longer blocks that are worth a try, of at most `most` steps."""
    return (n for n in (length // 4, length // 2, 2 * length, 4 * length) if 1 <= n <= most)


def row_tiles(rows: int, shape: Shape) -> int:
    """Return the height of tile that covers `rows` at the least cost, at most `shape.rows`."""
    heights = range(1, min(shape.rows, rows) + 1)
    return min(heights, key=lambda h: (_cost_in_tiles(rows, h, shape), -h))


def rows_cost(rows: int, shape: Shape) -> float:
    """Return what `rows` take with the best tiles, in full rows."""
    return _cost_in_tiles(rows, row_tiles(rows, shape), shape)


def _cost_in_tiles(rows: int, height: int, shape: Shape) -> float:
    """Return what `rows` take in tiles of a height.

    Ten sums hide the latency of an addition: a tile with fewer costs as much as one with ten.
    Writing a tile back costs about as much as half a row.
    """
    least = -(-10 // shape.vectors)
    whole, rest = divmod(rows, height)
    total = whole * (max(height, least) + 0.5)
    return total + (max(rest, least) + 0.5 if rest else 0)


def column_tiles(
    columns: int, shape: Shape, *, padded: bool
) -> tuple[int, Vectors, Vectors | None]:
    """Divide columns into panels.

    Returns:
        The number of whole panels, what one is, and the panel of the rest if there is one. The
        last vector of the rest is rounded up to a power of two if panels are `padded`.
    """
    width = shape.lanes * shape.vectors
    whole, rest = divmod(columns, width)
    full = Vectors((shape.lanes,) * shape.vectors, width)
    if not rest:
        return whole, full, None
    vectors, part = divmod(rest, shape.lanes)
    if part and padded:
        part = 1 << (part - 1).bit_length()
    return whole, full, Vectors((shape.lanes,) * vectors + ((part,) if part else ()), rest)


Reduce = Callable[[], AbstractContextManager[tuple[Expr, ...]]]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile to compute.

    Attributes:
        rows: Number of rows.
        vectors: The columns.
        dtype: Element type.
        reduce: Opens the reduction's loops and yields their indices.
        left: The left operand at row `i` and reduction indices: a number.
        right: The right operand from column `j` on, so many lanes, at reduction indices.
        put: Takes the result at row `i`, column `j`.
        store: Takes, instead, the result at row `i` from column `j` on, so many lanes.
    """

    rows: int
    vectors: Vectors
    dtype: DType
    reduce: Reduce
    left: Callable[[int, Sequence[Expr]], Expr]
    right: Callable[[int, int, Sequence[Expr]], Expr]
    put: Callable[[Scope, int, Expr, Expr], None] | None = None
    store: Callable[[int, int, int, Expr], None] | None = None


def compute(b: Builder, tile: Tile) -> None:
    """Write a tile."""
    code, width = b.code, tile.vectors.width
    total = code.local(tile.rows * width, tile.dtype)
    spans = list(zip(tile.vectors.starts, tile.vectors.lanes, strict=True))
    for i in range(tile.rows):
        for j, lanes in spans:
            zero = spread(number(0, tile.dtype), lanes)
            code.emit(total.store(code.const(i * width + j), zero, lanes))
    with tile.reduce() as ks:
        right = [code.bind(tile.right(j, lanes, ks)) for j, lanes in spans]
        for i in range(tile.rows):
            left = code.bind(tile.left(i, ks))
            for (j, lanes), vector in zip(spans, right, strict=True):
                at = code.const(i * width + j)
                value = total.load(at, lanes) + spread(left, lanes) * vector
                code.emit(total.store(at, value, lanes))
    _write(b, tile, total, spans)


def _write(b: Builder, tile: Tile, total: Memory, spans: Sequence[tuple[int, int]]) -> None:
    code, width = b.code, tile.vectors.width
    for i in range(tile.rows):
        for j, lanes in spans:
            if tile.store is not None:
                tile.store(i, j, lanes, total.load(code.const(i * width + j), lanes))
                continue
            valid = min(lanes, tile.vectors.valid - j)

            def put(scope: Scope, at: Expr, i: int = i) -> None:
                if tile.put is not None:
                    tile.put(scope, i, at, total.load(i * width + at))

            b.lane(valid, code.const(j), put, b.scope())


def spread(value: Expr, lanes: int) -> Expr:
    """Return a number in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def add_to(code: Code, memory: Memory, where: Expr, lanes: int, value: Expr) -> None:
    """Add a vector to memory. Blocks of a long sum are added so: it keeps more digits."""
    where = code.bind(where)
    code.emit(memory.store(where, memory.load(where, lanes) + value, lanes))
