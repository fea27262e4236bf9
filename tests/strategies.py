"""Random well-typed graphs, for properties that hold for every graph."""

from __future__ import annotations

from hypothesis import strategies as st

from pockc.ir import (
    Batch,
    DType,
    Gradient,
    Graph,
    Loss,
    Param,
    Prediction,
    TensorType,
)
from pockc.ir.builder import GraphBuilder

UNARY = ("neg", "abs", "tanh", "sigmoid", "sin", "exp")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
KINDS = ("unary", "binary", "constant", "move", "reduce", "product", "image", "gather")
SHAPES = ((), (4,), (3, 4), (2, 3, 4), (2, 1, 4), (2, 3, 4, 1))


def _values(b: GraphBuilder, names: list[str], rank: int = 0) -> list[str]:
    return [n for n in names if b.type_of(n).rank >= rank and b.type_of(n).dtype is DType.F32]


def _node(  # noqa: PLR0911  a table
    b: GraphBuilder, names: list[str], draw: st.DrawFn
) -> str:
    """Add one node on values that are there."""
    kind = draw(st.sampled_from(KINDS))
    x = draw(st.sampled_from(_values(b, names)))
    match kind:
        case "unary":
            return b.emit(draw(st.sampled_from(UNARY)), x)
        case "binary":
            return _binary(b, names, x, draw)
        case "constant":
            return b.emit("mul", x, b.scalar(draw(st.sampled_from((1.0, 0.0, -1.0, 2.5)))))
        case "reduce":
            return _reduce(b, x, draw)
        case "product":
            return _product(b, names, draw) or x
        case "image":
            return _image(b, x, draw)
        case "gather":
            return _gather(b, x, draw)
        case _:
            return _move(b, x, draw)


def _binary(b: GraphBuilder, names: list[str], x: str, draw: st.DrawFn) -> str:
    shape = b.type_of(x).shape
    alike = [
        n
        for n in _values(b, names)
        if b.type_of(n).size == 1 or b.type_of(n).shape in (shape, shape[1:], shape[-1:])
    ]
    y = draw(st.sampled_from([*alike, x]))
    op = draw(st.sampled_from((*BINARY, "where")))
    if op != "where":
        return b.emit(op, x, y)
    return b.emit("where", b.emit(draw(st.sampled_from(("gt", "le"))), x, y), x, y)


def _reduce(b: GraphBuilder, x: str, draw: st.DrawFn) -> str:
    rank = b.type_of(x).rank
    axes = draw(st.sets(st.integers(0, max(rank - 1, 0)), max_size=rank)) if rank else set()
    op = draw(st.sampled_from(("reduce_sum", "reduce_max", "reduce_min")))
    keep = draw(st.booleans())
    return b.emit(op, x, axes=tuple(sorted(axes)), keepdims=keep)


def _product(b: GraphBuilder, names: list[str], draw: st.DrawFn) -> str | None:
    matrices = _values(b, names, rank=2)
    if not matrices:
        return None
    a = draw(st.sampled_from(matrices))
    c = draw(st.sampled_from(matrices))
    rank, k = b.type_of(c).rank, b.type_of(a).shape[-1]
    if b.type_of(c).shape[-2] != k:
        perm = (*range(rank - 2), rank - 1, rank - 2)
        c = b.emit("permute", c, perm=perm)
    lead_a, lead_c = b.type_of(a).shape[:-2], b.type_of(c).shape[:-2]
    if b.type_of(c).shape[-2] != k or (lead_a and lead_c and lead_a != lead_c):
        return None
    # Keeps values in a range where rounding does not grow.
    return b.emit("tanh", b.emit("matmul", a, c))


def _image(b: GraphBuilder, x: str, draw: st.DrawFn) -> str:
    """A convolution with filters that are a table, or a pooling, of what is seen as images."""
    shape = b.type_of(x).shape
    if not 1 < len(shape) <= 4 or 0 in shape:
        return b.emit("neg", x)
    images = b.emit("reshape", x, shape=(1,) * (4 - len(shape)) + shape)
    channels = b.type_of(images).shape[1]
    window = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    if draw(st.booleans()):
        pool = {"kernel": (1, 1), "ceil_mode": False, **window}
        return b.emit("max_pool2d", images, **pool)
    groups = draw(st.sampled_from((1, channels)))
    filters = (channels if groups > 1 else 3, channels // groups, 1, 1)
    table = b.emit("iota", shape=filters, axis=0, dtype=DType.F32)
    return b.emit(
        "tanh", b.emit("conv2d", images, b.emit("cos", table), groups=groups, **window)
    )


def _gather(b: GraphBuilder, x: str, draw: st.DrawFn) -> str:
    """Rows at places that are constant or that depend on the values."""
    shape = b.type_of(x).shape
    if not shape or 0 in shape:
        return b.emit("abs", x)
    axis = draw(st.integers(0, len(shape) - 1))
    if draw(st.booleans()):
        places = b.emit("iota", shape=(shape[axis],), axis=0, dtype=DType.I64)
        return b.emit("take", x, places, axis=axis)
    highest = b.emit("argmax", x, axis=axis)
    kept = tuple(1 if d == axis else n for d, n in enumerate(shape))
    found = b.emit("take_along", x, b.emit("reshape", highest, shape=kept), axis=axis)
    return b.emit("put", x, found, axis=axis, indices=(draw(st.integers(0, shape[axis] - 1)),))


def _move(b: GraphBuilder, x: str, draw: st.DrawFn) -> str:  # noqa: PLR0911  a table
    shape = b.type_of(x).shape
    match draw(st.sampled_from(("reshape", "permute", "broadcast", "slice", "pad", "concat"))):
        case "reshape":
            merged = (shape[0] * shape[1], *shape[2:]) if len(shape) > 1 else (*shape, 1)
            return b.emit("reshape", x, shape=draw(st.sampled_from((merged, (1, *shape)))))
        case "permute":
            return b.emit("permute", x, perm=tuple(draw(st.permutations(range(len(shape))))))
        case "broadcast":
            return b.emit("broadcast_to", x, shape=(2, *shape))
        case "slice" if shape and shape[0] > 1:
            starts, stops = (1, *(0,) * (len(shape) - 1)), shape
            return b.emit("slice", x, starts=starts, stops=stops, steps=(1,) * len(shape))
        case "pad" if shape:
            low = (draw(st.integers(0, 1)), *(0,) * (len(shape) - 1))
            return b.emit("pad", x, low=low, high=low, value=0.0)
        case "concat" if shape:
            return b.emit("concat", x, x, axis=draw(st.integers(0, len(shape) - 1)))
        case _:
            return b.emit("neg", x)


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 12) -> Graph:
    """A graph of parameters and batches with a loss, gradients, and other outputs."""
    b = GraphBuilder("random")
    parameters = [
        b.input(Param(f"p{i}"), TensorType(shape, DType.F32))
        for i, shape in enumerate(
            draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
        )
    ]
    names = parameters + [
        b.input(Batch(f"x{i}"), TensorType(shape, DType.F32))
        for i, shape in enumerate(
            draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2))
        )
    ]
    for _ in range(draw(st.integers(1, max_nodes))):
        made = _node(b, names, draw)
        if made not in names and b.type_of(made).size <= 512:
            names.append(made)
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
    for i, value in enumerate(outputs):
        b.output(Prediction(str(i)), value)
    _add_loss(b, names[-1], parameters)
    return b.build()


def _add_loss(b: GraphBuilder, last: str, parameters: list[str]) -> None:
    """Add a loss, and for each parameter something of its shape as its gradient."""
    loss = b.emit("reduce_sum", last, axes=tuple(range(b.type_of(last).rank)), keepdims=False)
    b.output(Loss(), loss)
    for index, name in enumerate(parameters):
        scaled = b.emit("mul", b.emit("cos", name), loss)
        b.output(Gradient(f"p{index}"), scaled)
