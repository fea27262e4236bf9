"""Take factors per channel off images and put them onto filters and sums.

A batch norm with fixed statistics is a factor and a term per channel, whether they are trained
or not. Written out, each costs sweeps over images, and the gradient of a trained factor wants
the convolution's result kept for it. But a factor s per result channel commutes with the
convolution, and for an image g of gradients

    conv(x, w) * s              = conv(x, w * s)
    grad_input(g * s, w)        = grad_input(g, w * s)
    grad_weight(x, g * s)       = grad_weight(x, g) * s
    sum over pixels of g conv(x, w) = sum over taps of grad_weight(x, g) * w

where the right sides touch filters only. After this no image is kept for the sake of a factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from pockc.ir import Attrs, Buffer, Graph, Node, Param
from pockc.ir.verify import Invariant, no_dead_nodes
from pockc.passes.base import log
from pockc.passes.eliminate_dead import EliminateDead
from pockc.passes.rewriting import Rewriter, same_graph
from pockc.passes.shapes import Shape, size_of

_PIXELS = (0, 2, 3)
_TAPS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class ScaleFilters:
    """Apply factors per channel to filters rather than to images.

        %y = conv2d(%x, %w)                       %y = conv2d(%x, %w)
        %n = mul(%y, %r)                          %rs = mul(%r, %s)
        %a = mul(%n, %s)                          %a = mul(%y, %rs)
        %p = mul(%g, %n)                          %gw = conv2d_grad_weight(%x, %g)
        %ds = reduce_sum(%p)               ->     %q = mul(%gw, %w)
        %gs = mul(%g, %rs)                        %t = reduce_sum(%q)
        %dw = conv2d_grad_weight(%x, %gs)         %ds = mul(%t, %r)
        %dx = conv2d_grad_input(%gs, %w)          %dw = mul(%gw, %rs)
                                                  %ws = mul(%w, %rs)
                                                  %dx = conv2d_grad_input(%g, %ws)

    Done where the filters are smaller than the image, and the factor depends on parameters and
    constants alone.
    """

    requires: ClassVar[tuple[Invariant, ...]] = ()
    ensures: ClassVar[tuple[Invariant, ...]] = (no_dead_nodes,)

    def __call__(self, graph: Graph, /) -> Graph:
        """Return the graph with factors moved."""
        made = graph
        for walk in (_Backward, _Forward):
            walker = walk(made)
            for node in made.nodes:
                walker.visit(node)
            made = EliminateDead()(walker.finish())
        return graph if same_graph(made, graph) else made


@dataclass(frozen=True, slots=True)
class _Affine:
    """An image `conv * scale + shift`.

    Attributes:
        conv: The convolution.
        scale: Numbers per channel; None for 1.
        shift: Numbers per channel; None for 0.
        sweeps: How many nodes lie between the convolution and the image.
    """

    conv: Node
    scale: str | None = None
    shift: str | None = None
    sweeps: int = 0


class _Scales(Rewriter):
    """A walk that knows which values are numbers per channel, and convolutions behind them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._steady = {i.name for i in graph.inputs if isinstance(i.role, Param | Buffer)}
        self.affine: dict[str, _Affine] = {}

    def append(self, node: Node) -> str:
        """Add a node as it is."""
        if all(i in self._steady for i in node.inputs) and node.op != "random_uniform":
            self._steady.add(node.name)
        if node.op == "conv2d":
            self.affine[node.name] = _Affine(node)
        return super().append(node)

    def factor(self, node: Node) -> tuple[str, str] | None:
        """Return (image, numbers per channel) that an elementwise node combines."""
        pairs = [node.inputs] if node.op == "sub" else [node.inputs, node.inputs[::-1]]
        for image, numbers in pairs:
            if (
                numbers in self._steady
                and len(node.type.shape) == 4
                and self.type_of(image) == node.type
                and self.type_of(numbers).shape == (1, node.type.shape[1], 1, 1)
            ):
                return image, numbers
        return None

    def product(self, a: str | None, b: str) -> str:
        """Return the product of numbers per channel."""
        return b if a is None else self.emit("mul", a, b, name="scale")

    def chained(self, node: Node) -> _Affine | None:
        """Return the result of a node as an affine image, None if it is none."""
        if node.op not in ("add", "sub", "mul") or (found := self.factor(node)) is None:
            return None
        before, numbers = self.affine.get(found[0]), found[1]
        if before is None:
            return None
        after = replace(before, sweeps=before.sweeps + 1)
        if node.op == "mul":
            shift = None if before.shift is None else self.product(before.shift, numbers)
            return replace(after, scale=self.product(before.scale, numbers), shift=shift)
        if node.op == "sub":
            numbers = self.emit("neg", numbers, name="shift")
        if before.shift is not None:
            numbers = self.emit("add", before.shift, numbers, name="shift")
        return replace(after, shift=numbers)


class _Backward(_Scales):
    """Moves factors out of gradients and of the sums that train them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._scaled: dict[str, tuple[str, str]] = {}
        self._trained = {
            (node.inputs[0], _window(node), gradient)
            for node in graph.nodes
            if node.op == "conv2d_grad_weight"
            for gradient in _without_factors(graph, node.inputs[1])
        }

    def visit(self, old: Node) -> None:
        """Add a node, or what stands for it."""
        node = self.here(old)
        made: str | None = None
        if node.op == "mul" and (found := self.factor(node)):
            image, first = self._scaled.get(found[0], (found[0], None))
            self._scaled[node.name] = image, self.product(first, found[1])
        elif node.op == "conv2d_grad_input":
            made = self._input_gradient(node)
        elif node.op == "conv2d_grad_weight":
            made = self._weight_gradient(node)
        elif node.op == "reduce_sum" and tuple(node.attrs["axes"]) == _PIXELS:
            made = self._sum(old)
        if made is not None:
            self.replace(old.name, made)
            return
        if (affine := self.chained(node)) is not None:
            self.affine[node.name] = affine
        self.append(node)

    def _bare(self, gradient: str, filters: Shape) -> tuple[str, str] | None:
        """Return a gradient before its factors, and those as numbers per filter."""
        found = self._scaled.get(gradient)
        if found is None or size_of(filters) >= self.type_of(gradient).size:
            return None
        count = self.type_of(found[1]).size
        return found[0], self.emit("reshape", found[1], shape=(count, 1, 1, 1), name="scale")

    def _input_gradient(self, node: Node) -> str | None:
        gradient, filters = node.inputs
        found = self._bare(gradient, self.type_of(filters).shape)
        if found is None:
            return None
        log.debug("scale_filters: %%%s carries back without factors", node.name)
        scaled = self.emit("mul", filters, found[1], name="scaled", source=node.source)
        return self.append(replace(node, inputs=(found[0], scaled)))

    def _weight_gradient(self, node: Node) -> str | None:
        found = self._bare(node.inputs[1], node.type.shape)
        if found is None:
            return None
        log.debug("scale_filters: %%%s is scaled after its sum", node.name)
        bare = self.append(replace(node, inputs=(node.inputs[0], found[0])))
        return self.emit("mul", bare, found[1], name="scaled", source=node.source)

    def _sum(self, old: Node) -> str | None:
        """Return a sum over pixels of a gradient times an affine image, from filters."""
        product = self.graph.node(old.inputs[0])
        if product is None or product.op != "mul":
            return None
        for gradient, image in (product.inputs, product.inputs[::-1]):
            affine = self.affine.get(self.now(image))
            if affine is None or self.graph.type_of(gradient) != product.type:
                continue
            read, filters = affine.conv.inputs
            is_trained = (read, _window(affine.conv), gradient) in self._trained
            if is_trained and self.type_of(filters).size < product.type.size:
                return self._factor_gradient(old, self.now(gradient), affine)
        return None

    def _factor_gradient(self, node: Node, gradient: str, affine: _Affine) -> str:
        log.debug("scale_filters: %%%s is a sum over filters", node.name)
        image, filters = affine.conv.inputs
        attrs = Attrs({**affine.conv.attrs, "weight_shape": self.type_of(filters).shape})
        bare = self.add("conv2d_grad_weight", (image, gradient), attrs, node.source)
        product = self.emit("mul", bare, filters, source=node.source)
        total = self.emit("reduce_sum", product, axes=_TAPS, keepdims=False, source=node.source)
        count = (self.type_of(total).size,)
        if affine.scale is not None:
            scale = self.emit("reshape", affine.scale, shape=count)
            total = self.emit("mul", total, scale, source=node.source)
        if affine.shift is not None:
            whole = self.emit("reduce_sum", gradient, axes=_PIXELS, keepdims=False)
            shift = self.emit("reshape", affine.shift, shape=count)
            total = self.emit("add", total, self.emit("mul", whole, shift), source=node.source)
        if node.type.shape == count:
            return total
        return self.emit("reshape", total, shape=node.type.shape)


class _Forward(_Scales):
    """Makes one factor and one term of a chain of them, where nobody reads its middle."""

    def visit(self, old: Node) -> None:
        """Add a node, or what stands for it."""
        node = self.here(old)
        affine = self.chained(node)
        if affine is None:
            self.append(node)
            return
        if self._middle_is_read(old):
            self.append(node)
            return
        least = (affine.scale is not None) + (affine.shift is not None)
        if affine.sweeps > least:
            log.debug("scale_filters: %%%s ends %d sweeps", node.name, affine.sweeps)
            affine = replace(affine, sweeps=least)
            self._write(node, affine)
        else:
            self.append(node)
        self.affine[node.name] = affine

    def _middle_is_read(self, node: Node) -> bool:
        image = next(i for i in node.inputs if self.graph.type_of(i) == node.type)
        if self.affine[self.now(image)].sweeps == 0:
            return False
        return len(self.graph.users[image]) > 1 or image in self.graph.output_values

    def _write(self, node: Node, affine: _Affine) -> None:
        """Add an affine image under the name of a node."""
        parts = [("mul", affine.scale), ("add", affine.shift)]
        steps = [(op, numbers) for op, numbers in parts if numbers is not None]
        value = affine.conv.name
        for op, numbers in steps[:-1]:
            value = self.emit(op, value, numbers, source=node.source)
        op, numbers = steps[-1]
        self.append(replace(node, op=op, inputs=(value, numbers)))


def _window(node: Node) -> Attrs:
    return Attrs({k: node.attrs[k] for k in ("dilation", "groups", "padding", "stride")})


def _without_factors(graph: Graph, gradient: str) -> Iterator[str]:
    """Yield a gradient, and what it was before each factor that was applied to it."""
    yield gradient
    made = graph.node(gradient)
    while made is not None and made.op == "mul":
        images = [i for i in made.inputs if graph.type_of(i) == made.type]
        if len(images) != 1:
            return
        yield images[0]
        made = graph.node(images[0])
