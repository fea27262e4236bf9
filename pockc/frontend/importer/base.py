"""The table of handlers and the loop that imports a traced graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import fx

from pockc.errors import InternalError, Problem, UserError
from pockc.frontend.dtypes import dtype_of, tensor_type
from pockc.ir import (
    DType,
    Graph,
    InputRole,
    Literal,
    OutputRole,
    Scalar,
    Source,
    TensorType,
)
from pockc.ir.attrs import AttrValue
from pockc.ir.builder import GraphBuilder
from pockc.ops import OPS, OpKind


class Value(str):
    """The name of a value of the graph; never confused with an argument that is a text."""

    __slots__ = ()


Number: TypeAlias = "int | float | bool"
Operand: TypeAlias = "Value | int | float | bool"
Result: TypeAlias = "Value | tuple[Value | None, ...]"


class Handler(Protocol):
    """Emits what an ATen operation means.

    Positional arguments come as in the operation's schema, defaults filled in; tensors as
    `Value`. Of the named ones only those that say something about values are passed.
    """

    def __call__(self, b: Importer, /, *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401
        """Return the value or values of the operation's results."""


H = TypeVar("H", bound=Callable[..., Any])
HANDLERS: dict[str, Handler] = {}

# Arguments that say where a result lives, not what it is.
_PLACEMENT = frozenset(
    ("device", "layout", "pin_memory", "memory_format", "non_blocking", "generator", "names")
)


def lower(*names: str) -> Callable[[H], H]:
    """Register a function as the handler of ATen operations, named as "aten.relu.default"."""

    def register(handler: H) -> H:
        for name in names:
            if name in HANDLERS:
                raise ImportError(f"{name} has two handlers")
            HANDLERS[name] = handler
        return handler

    return register


class Unsupported(Exception):  # noqa: N818  it says what it is
    """A form of an operation that its handler does not know; the text completes a sentence."""


class Importer:
    """Emits nodes into a graph; handlers get it as their first argument.

    Attributes:
        out: The type of the result of the operation being imported, by torch's account.
        outs: The types of all its results, None for those torch did not compute.
        node: The operation itself.
        live: What the results depend on; the rest of the traced graph is not imported.
    """

    def __init__(self, name: str, live: Iterable[fx.Node] = ()) -> None:
        self.builder = GraphBuilder(name)
        self.live = frozenset(live)
        self.node: fx.Node
        self.outs: tuple[TensorType | None, ...] = ()
        self.source: Source | None = None
        self._salt = 0
        self._widened: dict[tuple[Value, DType], Value] = {}
        self._seed: Value | None = None

    @property
    def out(self) -> TensorType:
        """The type of the only result."""
        found = self.outs[0]
        if found is None:
            raise InternalError(Problem("import-type", f"{self.node.target} has no result"))
        return found

    def emit(self, op: str, *inputs: Value, **attrs: AttrValue) -> Value:
        """Add a node that comes from the current line."""
        return Value(self.builder.emit(op, *inputs, name=None, source=self.source, **attrs))

    def type_of(self, value: Value) -> TensorType:
        """Return the type of a value."""
        return self.builder.type_of(value)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.builder.type_of(value).shape

    def scalar(self, value: Number, dtype: DType) -> Value:
        """Return a 0-d constant of a type."""
        kept = float(value) if dtype.is_float else int(value)
        return Value(self.builder.scalar(bool(value) if dtype is DType.B1 else kept, dtype))

    def to(self, x: Operand, dtype: DType) -> Value:
        """Return an operand as a value of a type."""
        if not isinstance(x, Value):
            return self.scalar(x, dtype)
        # Widening and narrowing again gives the same number.
        x = self._widened.get((x, dtype), x)
        if self.type_of(x).dtype is dtype:
            return x
        y = self.emit("cast", x, dtype=dtype)
        if (self.type_of(x).dtype, dtype) == (DType.F32, DType.F64):
            self._widened[y, DType.F32] = x
        return y

    def apply(self, op: str, *operands: Operand, dtype: DType | None = None) -> Value:
        """Add an elementwise node whose operands are brought to one type.

        Args:
            op: An elementwise op.
            operands: Values, or numbers that become constants.
            dtype: The type to compute in; that of the first value if not given.
        """
        if dtype is None:
            dtype = next(self.type_of(x).dtype for x in operands if isinstance(x, Value))
        return self.emit(op, *(self.to(x, dtype) for x in operands))

    def where(
        self, condition: Value, a: Operand, b: Operand, dtype: DType | None = None
    ) -> Value:
        """Return `a` where the condition holds, else `b`."""
        if dtype is None:
            dtype = next(self.type_of(x).dtype for x in (a, b) if isinstance(x, Value))
        return self.emit("where", condition, self.to(a, dtype), self.to(b, dtype))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return a value under another shape."""
        wanted = tuple(int(n) for n in shape)
        return x if self.shape(x) == wanted else self.emit("reshape", x, shape=wanted)

    def permute(self, x: Value, perm: Sequence[int]) -> Value:
        """Return a value with its dimensions in another order."""
        rank = len(perm)
        wanted = tuple(int(d) % rank for d in perm) if rank else ()
        return x if wanted == tuple(range(rank)) else self.emit("permute", x, perm=wanted)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Return a value repeated to a shape that it broadcasts to."""
        wanted = tuple(int(n) for n in shape)
        return x if self.shape(x) == wanted else self.emit("broadcast_to", x, shape=wanted)

    def reduce(
        self, op: str, x: Value, axes: Sequence[int], *, keepdims: bool = False
    ) -> Value:
        """Add a reduction; over no axes it is the operand itself."""
        rank = len(self.shape(x))
        normal = tuple(sorted(d % rank for d in axes)) if rank else ()
        return self.emit(op, x, axes=normal, keepdims=keepdims) if normal else x

    def sum_to(self, x: Value, shape: Sequence[int]) -> Value:
        """Add up what broadcasting from `shape` has repeated."""
        have, want = self.shape(x), tuple(shape)
        lead = len(have) - len(want)
        axes = list(range(lead))
        axes += [lead + d for d, n in enumerate(want) if n == 1 and have[lead + d] != 1]
        return self.reshape(self.reduce("reduce_sum", x, axes), want)

    def full(self, value: Number, tensor: TensorType) -> Value:
        """Return a tensor of one number."""
        number = self.scalar(value, tensor.dtype)
        return self.expand(number, tensor.shape)

    def zeros(self) -> Result:
        """Return something of the types of the results, to go on with after a problem."""
        if not isinstance(self.node.meta["val"], (tuple, list)):
            return self.full(0, self.out)
        return tuple(None if t is None else self.full(0, t) for t in self.outs)

    def iota(self, shape: Sequence[int], axis: int, dtype: DType = DType.I64) -> Value:
        """Return the index along an axis."""
        return self.emit("iota", shape=tuple(shape), axis=axis, dtype=dtype)

    def literal(self, array: np.ndarray) -> Value:
        """Return a constant array."""
        return self.emit("literal", value=Literal(array))

    def random(self, shape: Sequence[int]) -> Value:
        """Return fresh f32 numbers in [0, 1); calls are numbered in the order of the graph."""
        if self._seed is None:
            role = Scalar("seed")
            self._seed = Value(self.builder.input(role, TensorType((), DType.I64), name="seed"))
        self._salt += 1
        return self.emit("random_uniform", self._seed, shape=tuple(shape), salt=self._salt - 1)


def supported(name: str) -> bool:
    """Return whether an ATen operation can be imported, by its name."""
    return name in HANDLERS or name in _ONE_TO_ONE


def import_graph(
    name: str,
    module: fx.GraphModule,
    inputs: Mapping[fx.Node, tuple[InputRole, TensorType] | np.ndarray],
    outputs: Sequence[tuple[OutputRole, int]],
    source_of: Callable[[fx.Node], Source | None],
) -> Graph:
    """Return the graph of some results of a traced module.

    Args:
        name: Name of the graph.
        module: A functional ATen graph with fake values on its nodes.
        inputs: For every placeholder its role and type, or the array it always holds. Those
            that no result needs are left out of the graph.
        outputs: Roles, each with the position of its result among the module's results.
        source_of: The user's line of a node.

    Raises:
        UserError: [unsupported-op] or [unsupported-dtype], one for every operation and line.
    """
    results = _results(module)
    wanted = [results[position] for _, position in outputs]
    live = _live(module, wanted)
    if problems := tuple(_unsupported(live, source_of)):
        raise UserError(*problems)
    b = Importer(name, live)
    values = _inputs(b, live, inputs, module)
    problems = tuple(_emit_all(b, live, values, source_of))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    for (role, _), node in zip(outputs, wanted, strict=True):
        b.builder.output(role, _one(values[node]))
    return b.builder.build()


def _inputs(
    b: Importer,
    live: Sequence[fx.Node],
    inputs: Mapping[fx.Node, tuple[InputRole, TensorType] | np.ndarray],
    module: fx.GraphModule,
) -> dict[fx.Node, Result]:
    values: dict[fx.Node, Result] = {}
    for node in live:
        if node.op == "get_attr":
            values[node] = b.literal(_constant(module, str(node.target)))
        elif node.op == "placeholder":
            given = inputs[node]
            if isinstance(given, np.ndarray):
                values[node] = b.literal(given)
            else:
                role, tensor = given
                values[node] = Value(b.builder.input(role, tensor, name=_name_of(role)))
    return values


def _emit_all(
    b: Importer,
    live: Sequence[fx.Node],
    values: dict[fx.Node, Result],
    source_of: Callable[[fx.Node], Source | None],
) -> Iterator[Problem]:
    for node in live:
        if node.op != "call_function":
            continue
        if node.target is operator.getitem:
            whole, at = values[node.args[0]], node.args[1]  # type: ignore[index]
            values[node] = whole[at]  # type: ignore[index, assignment]
            continue
        b.node, b.source, b.outs = node, source_of(node), _types(node)
        try:
            found = _handle(b, node, values)
        except Unsupported as e:
            yield _problem(node, f"{op_name(node)} {e}", b.source)
            found = b.zeros()
        values[node] = found
        _check_types(b, node, found)


def _handle(b: Importer, node: fx.Node, values: Mapping[fx.Node, Result]) -> Result:
    name = op_name(node)
    args, kwargs = _arguments(node, values)
    handler = HANDLERS.get(name)
    return handler(b, *args, **kwargs) if handler else _one_to_one(b, _ONE_TO_ONE[name], args)


def _arguments(
    node: fx.Node, values: Mapping[fx.Node, Result]
) -> tuple[list[Any], dict[str, Any]]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    positional = [a for a in schema if not a.kwarg_only]
    args = list(node.args)
    args += [node.kwargs.get(a.name, a.default_value) for a in positional[len(args) :]]
    named = {
        a.name: node.kwargs.get(a.name, a.default_value)
        for a in schema
        if a.kwarg_only and a.name not in _PLACEMENT
    }
    lookup = values.__getitem__
    return (
        list(fx.node.map_arg(tuple(args), lookup)),
        dict(fx.node.map_arg(named, lookup)),
    )


def _one_to_one(b: Importer, op: str, args: Sequence[Any]) -> Value:
    """Emit an op that an ATen operation is, operands brought to the type it computes in."""
    if OPS[op].kind is not OpKind.ELEMENTWISE:
        return b.emit(op, *args)
    dtype = b.out.dtype
    if op in ("logical_and", "logical_or", "logical_not"):
        dtype = DType.B1
    elif dtype is DType.B1:
        dtype = promoted(b, *args)
    return b.apply(op, *args, dtype=dtype)


def promoted(b: Importer, *operands: Operand) -> DType:
    """Return the type that torch computes in, given operands as they are."""
    kept = [
        torch.empty(b.shape(x)[:1] and (1,), dtype=_TORCHS[b.type_of(x).dtype])
        if isinstance(x, Value)
        else x
        for x in operands
    ]
    result = torch.result_type(kept[0], kept[-1])
    found = dtype_of(result)
    if found is None:
        raise Unsupported(f"computes in {result}")
    return found


_TORCHS = {
    ours: dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and (ours := dtype_of(dtype)) is not None
}
_ONE_TO_ONE = {aten: op.name for op in OPS.values() for aten in op.aten}


def op_name(node: fx.Node) -> str:
    """Return the name of an operation as "aten.relu.default"."""
    return str(node.target)


def _live(module: fx.GraphModule, wanted: Sequence[fx.Node]) -> list[fx.Node]:
    """Return what some nodes depend on, themselves included, in order."""
    needed: set[fx.Node] = set()
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    return [n for n in module.graph.nodes if n in needed]


def _results(module: fx.GraphModule) -> list[fx.Node]:
    (output,) = (n for n in module.graph.nodes if n.op == "output")
    return list(output.args[0])


def _unsupported(
    live: Sequence[fx.Node], source_of: Callable[[fx.Node], Source | None]
) -> Iterator[Problem]:
    """Yield a problem for every operation without a handler and for every unusable type."""
    seen = set()
    for node in live:
        line = source_of(node)
        if node.op == "call_function" and node.target is not operator.getitem:
            key = (op_name(node), str(line))
            if not supported(key[0]) and key not in seen:
                seen.add(key)
                yield _problem(node, f"{key[0]} is not supported", line)
                continue
        for tensor in _tensors(node):
            if dtype_of(tensor.dtype) is None and (str(tensor.dtype), str(line)) not in seen:
                seen.add((str(tensor.dtype), str(line)))
                yield Problem(
                    "unsupported-dtype",
                    f"{node.name} has the element type {tensor.dtype}; choose from: "
                    + ", ".join(d.value for d in DType),
                    at=_at(node),
                    source=None if line is None else str(line),
                    fix="compute it with real numbers of a supported type",
                )


def _problem(node: fx.Node, what: str, line: Source | None) -> Problem:
    return Problem(
        "unsupported-op",
        what,
        at=_at(node),
        source=None if line is None else str(line),
        fix="write it with supported operations, or add a handler in pockc/frontend/importer",
    )


def _at(node: fx.Node) -> str:
    operands = ", ".join(
        f"%{a.name}" if isinstance(a, fx.Node) else _brief(a) for a in node.args
    )
    types = ", ".join(_spell(t) for t in _tensors(node))
    return f"%{node.name} : {types} = {op_name(node)}({operands})"


def _brief(argument: object) -> str:
    if isinstance(argument, (list, tuple)):
        inside = ", ".join(
            f"%{a.name}" if isinstance(a, fx.Node) else _brief(a) for a in argument
        )
        return f"[{inside}]"
    return str(argument)


def _spell(tensor: torch.Tensor) -> str:
    dtype = dtype_of(tensor.dtype)
    name = str(tensor.dtype).removeprefix("torch.") if dtype is None else dtype.value
    return f"{name}[{','.join(map(str, tensor.shape))}]"


def _tensors(node: fx.Node) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return [t for t in leaves if isinstance(t, torch.Tensor)]


def _types(node: fx.Node) -> tuple[TensorType | None, ...]:
    value = node.meta["val"]
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(tensor_type(t) if isinstance(t, torch.Tensor) else None for t in values)


def _check_types(b: Importer, node: fx.Node, found: Result) -> None:
    values = (found,) if isinstance(found, Value) else found
    for value, expected in zip(values, b.outs, strict=False):
        if value is None or expected is None:
            continue
        if b.type_of(value) != expected:
            raise InternalError(
                Problem(
                    "import-type",
                    f"importing {op_name(node)} gave {b.type_of(value)}, torch says {expected}",
                    at=_at(node),
                    source=None if b.source is None else str(b.source),
                )
            )


def _one(value: Result) -> Value:
    if not isinstance(value, Value):
        raise InternalError(Problem("import-type", "an output is no single tensor"))
    return value


def _name_of(role: InputRole) -> str:
    return str(getattr(role, "name", role.keyword))


def _constant(module: fx.GraphModule, name: str) -> np.ndarray:
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    return np.asarray(found.detach().cpu().numpy())  # type: ignore[operator]
