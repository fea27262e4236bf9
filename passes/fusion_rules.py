"""What kernels a backend can make of several nodes: data that `fuse` obeys.

A fused kernel has one result and is built around one anchor:

    injective    Each element of the result by itself: elementwise ops, generators, moves
                 (slice, pad, concat, broadcast_to, relayout), gathers; no anchor node.
    contraction  One contraction or pooling whose operands are operands of the kernel, then
                 elementwise ops of the shape and layout of its result (bias, activation,
                 residual, mask, update). The other operands of those ops may be injective
                 expressions themselves.
    reduction    One reduction of an injective expression, then elementwise ops of the shape of
                 its result.
    row          Several reductions of the same axes, innermost in memory, of tensors of one
                 shape, and elementwise ops between, before and after them: softmax, layer
                 norm, cross-entropy, and their gradients. The result has the full shape or the
                 reduced one. Reductions keep their axes as size 1 unless they are the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from pockc import ops
from pockc.ops import OpKind

ELEMENTWISE = frozenset(n for n, o in ops.OPS.items() if o.kind is OpKind.ELEMENTWISE)
GENERATORS = frozenset({"full", "iota", "random_uniform"})
CONTRACTIONS = frozenset(
    n for n, o in ops.OPS.items() if o.kind in (OpKind.CONTRACTION, OpKind.POOL)
)


@dataclass(frozen=True, slots=True)
class FusionRules:
    """What may be in the body of a `fused` node.

    Attributes:
        injective: Ops of an injective expression.
        epilogue: Ops between an anchor and the result.
        contractions: Contractions and poolings, which take an epilogue.
        reductions: Reductions that take a prologue and an epilogue.
        rows: Reductions that a row kernel may hold.
        row_bytes: Longest row that a row kernel takes.
        operands: Most operands of a kernel.
        update_in_anchor: Whether a contraction or reduction kernel may overwrite one of the
            operands of its epilogue. If not, the new value of a parameter is a kernel of its
            own, so that it can be made in place.
    """

    injective: frozenset[str] = (
        ELEMENTWISE
        | GENERATORS
        | {"slice", "pad", "concat", "broadcast_to", "relayout", "take", "take_along"}
    )
    epilogue: frozenset[str] = ELEMENTWISE
    contractions: frozenset[str] = CONTRACTIONS
    reductions: frozenset[str] = frozenset({"reduce_sum", "reduce_max", "reduce_min"})
    rows: frozenset[str] = frozenset({"reduce_sum", "reduce_max", "reduce_min"})
    row_bytes: int = 1 << 20
    operands: int = 24
    update_in_anchor: bool = True
