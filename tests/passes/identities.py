"""One graph for each identity: `x` is f32[2,3,4], `r` f32[4], `i` i64[2,3,4], `b` b1[2,3,4]."""

# ruff: noqa: E501  graph text is as long as it is
from __future__ import annotations

from pockc.ir import Graph
from tests.support import graph

HEAD = """
%x : f32[2,3,4] = input batch "x"
%y : f32[2,3,4] = input batch "y"
%r : f32[4] = input batch "r"
%w : f32[4,5] = input param "w"
%i : i64[2,3,4] = input batch "i"
%j : i64[2,3,4] = input batch "j"
%b : b1[2,3,4] = input batch "b"
%zero : f32[2,3,4] = full() {shape=(2,3,4), value=0.0, dtype=f32}
%one : f32[] = full() {shape=(), value=1.0, dtype=f32}
%two : f32[] = full() {shape=(), value=2.0, dtype=f32}
%three : f32[] = full() {shape=(), value=3.0, dtype=f32}
%half : f32[] = full() {shape=(), value=0.5, dtype=f32}
%minus : f32[] = full() {shape=(), value=-1.0, dtype=f32}
%yes : b1[] = full() {shape=(), value=true, dtype=b1}
"""

CASES: dict[str, str] = {
    "add_zero": "%o : f32[2,3,4] = add(%x, %zero)",
    "zero_add": "%o : f32[2,3,4] = add(%zero, %x)",
    "add_zero_that_broadcasts": "%o : f32[2,3,4] = add(%r, %zero)",
    "mul_one": "%o : f32[2,3,4] = mul(%one, %x)",
    "div_one": "%o : f32[2,3,4] = div(%x, %one)",
    "pow_one": "%o : f32[2,3,4] = pow(%x, %one)",
    "pow_two": "%o : f32[2,3,4] = pow(%x, %two)",
    "pow_half": "%a : f32[2,3,4] = abs(%x)\n%o : f32[2,3,4] = pow(%a, %half)",
    "div_by_two": "%o : f32[2,3,4] = div(%x, %two)",
    "one_by_root": """%a : f32[2,3,4] = abs(%x)
%s : f32[2,3,4] = sqrt(%a)
%o : f32[2,3,4] = div(%one, %s)""",
    "negate_twice": "%a : f32[2,3,4] = neg(%x)\n%o : f32[2,3,4] = neg(%a)",
    "negate_difference": "%a : f32[2,3,4] = sub(%x, %y)\n%o : f32[2,3,4] = neg(%a)",
    "add_negative": "%a : f32[2,3,4] = neg(%y)\n%o : f32[2,3,4] = add(%x, %a)",
    "add_to_negative": "%a : f32[2,3,4] = neg(%x)\n%o : f32[2,3,4] = add(%a, %y)",
    "sub_negative": "%a : f32[2,3,4] = neg(%y)\n%o : f32[2,3,4] = sub(%x, %a)",
    "zero_minus": "%o : f32[2,3,4] = sub(%zero, %x)",
    "sub_constant": "%o : f32[2,3,4] = sub(%x, %two)",
    "mul_minus_one": "%o : f32[2,3,4] = mul(%x, %minus)",
    "mul_negatives": """%a : f32[2,3,4] = neg(%x)
%c : f32[2,3,4] = neg(%y)
%o : f32[2,3,4] = mul(%a, %c)""",
    "constant_chain": "%a : f32[2,3,4] = mul(%x, %two)\n%o : f32[2,3,4] = mul(%three, %a)",
    "abs_of_negative": "%a : f32[2,3,4] = neg(%x)\n%o : f32[2,3,4] = abs(%a)",
    "maximum_of_same": "%o : f32[2,3,4] = maximum(%x, %x)",
    "not_not": "%a : b1[2,3,4] = logical_not(%b)\n%o : b1[2,3,4] = logical_not(%a)",
    "not_equal": "%a : b1[2,3,4] = eq(%x, %y)\n%o : b1[2,3,4] = logical_not(%a)",
    "not_less_of_integers": "%a : b1[2,3,4] = lt(%i, %j)\n%o : b1[2,3,4] = logical_not(%a)",
    "and_true": "%o : b1[2,3,4] = logical_and(%b, %yes)",
    "or_true": "%o : b1[2,3,4] = logical_or(%b, %yes)",
    "where_true": "%o : f32[2,3,4] = where(%yes, %x, %y)",
    "where_same": "%o : f32[2,3,4] = where(%b, %x, %x)",
    "where_not": "%a : b1[2,3,4] = logical_not(%b)\n%o : f32[2,3,4] = where(%a, %x, %y)",
    "cast_to_same": "%o : f32[2,3,4] = cast(%x) {dtype=f32}",
    "cast_back": "%a : f64[2,3,4] = cast(%x) {dtype=f64}\n%o : f32[2,3,4] = cast(%a) {dtype=f32}",
    "cast_constant": "%c : f64[] = cast(%two) {dtype=f64}\n%d : f64[2,3,4] = cast(%x) {dtype=f64}\n%o : f64[2,3,4] = mul(%d, %c)",
    "broadcast_of_operand": """%a : f32[2,3,4] = broadcast_to(%r) {shape=(2,3,4)}
%o : f32[2,3,4] = add(%x, %a)""",
    "broadcast_of_both": """%a : f32[2,3,4] = broadcast_to(%r) {shape=(2,3,4)}
%o : f32[2,3,4] = mul(%a, %a)""",
    "reshape_with_leading_ones": """%a : f32[1,1,4] = reshape(%r) {shape=(1,1,4)}
%o : f32[2,3,4] = add(%x, %a)""",
    "tanh_of_reshape": "%a : f32[6,4] = reshape(%x) {shape=(6,4)}\n%o : f32[6,4] = tanh(%a)",
    "add_bias_to_reshape": "%a : f32[6,4] = reshape(%x) {shape=(6,4)}\n%o : f32[6,4] = add(%a, %r)",
    "scale_of_permute": """%a : f32[4,2,3] = permute(%x) {perm=(2,0,1)}
%o : f32[4,2,3] = mul(%a, %half)""",
    "reshape_twice": "%a : f32[6,4] = reshape(%x) {shape=(6,4)}\n%o : f32[24] = reshape(%a) {shape=(24,)}",
    "reshape_back": "%a : f32[6,4] = reshape(%x) {shape=(6,4)}\n%o : f32[2,3,4] = reshape(%a) {shape=(2,3,4)}",
    "permute_twice": """%a : f32[4,2,3] = permute(%x) {perm=(2,0,1)}
%o : f32[2,3,4] = permute(%a) {perm=(1,2,0)}""",
    "permute_of_ones": """%a : f32[2,1,3,4] = reshape(%x) {shape=(2,1,3,4)}
%o : f32[2,3,1,4] = permute(%a) {perm=(0,2,1,3)}""",
    "permute_of_merge": """%a : f32[6,4] = reshape(%x) {shape=(6,4)}
%o : f32[4,6] = permute(%a) {perm=(1,0)}""",
    "permute_of_broadcast": """%a : f32[2,3,1] = slice(%x) {starts=(0,0,0), stops=(2,3,1), steps=(1,1,1)}
%c : f32[2,3,4] = broadcast_to(%a) {shape=(2,3,4)}
%o : f32[4,3,2] = permute(%c) {perm=(2,1,0)}""",
    "split_of_permute": """%a : f32[3,2,4] = permute(%x) {perm=(1,0,2)}
%o : f32[3,2,2,2] = reshape(%a) {shape=(3,2,2,2)}""",
    "slice_of_everything": "%o : f32[2,3,4] = slice(%x) {starts=(0,0,0), stops=(2,3,4), steps=(1,1,1)}",
    "slice_twice": """%a : f32[2,2,4] = slice(%x) {starts=(0,1,0), stops=(2,3,4), steps=(1,1,1)}
%o : f32[2,1,2] = slice(%a) {starts=(0,1,0), stops=(2,2,4), steps=(1,1,2)}""",
    "slice_of_concat": """%a : f32[2,6,4] = concat(%x, %y) {axis=1}
%o : f32[2,2,4] = slice(%a) {starts=(0,4,0), stops=(2,6,4), steps=(1,1,1)}""",
    "slice_of_pad": """%a : f32[2,5,4] = pad(%x) {low=(0,1,0), high=(0,1,0), value=0.0}
%o : f32[2,3,4] = slice(%a) {starts=(0,1,0), stops=(2,4,4), steps=(1,1,1)}""",
    "pad_by_nothing": "%o : f32[2,3,4] = pad(%x) {low=(0,0,0), high=(0,0,0), value=1.0}",
    "concat_of_one": "%o : f32[2,3,4] = concat(%x) {axis=1}",
    "concat_of_concat": "%a : f32[4,3,4] = concat(%x, %y) {axis=0}\n%o : f32[6,3,4] = concat(%a, %x) {axis=0}",
    "gradient_of_split": """%a : f32[2,6,4] = pad(%x) {low=(0,0,0), high=(0,3,0), value=0.0}
%c : f32[2,6,4] = pad(%y) {low=(0,3,0), high=(0,0,0), value=0.0}
%o : f32[2,6,4] = add(%c, %a)""",
    "reduce_over_one": """%a : f32[2,1,3,4] = reshape(%x) {shape=(2,1,3,4)}
%o : f32[2,3] = reduce_sum(%a) {axes=(1,3), keepdims=false}""",
    "reduce_over_nothing": "%o : f32[2,3,4] = reduce_max(%x) {axes=(), keepdims=true}",
    "reduce_twice": """%a : f32[2,4] = reduce_sum(%x) {axes=(1,), keepdims=false}
%o : f32[2] = reduce_sum(%a) {axes=(1,), keepdims=false}""",
    "reduce_of_merge": """%a : f32[6,4] = reshape(%x) {shape=(6,4)}
%o : f32[4] = reduce_sum(%a) {axes=(0,), keepdims=false}""",
    "reduce_of_permute": """%a : f32[4,2,3] = permute(%x) {perm=(2,0,1)}
%o : f32[2] = reduce_max(%a) {axes=(0,2), keepdims=false}""",
    "reduce_of_broadcast": """%a : f32[2,3,4] = broadcast_to(%r) {shape=(2,3,4)}
%o : f32[4] = reduce_sum(%a) {axes=(0,1), keepdims=false}""",
    "reduce_of_constant": "%o : f32[2] = reduce_sum(%zero) {axes=(1,2), keepdims=false}",
    "axes_kept_after_all": """%a : f32[2,3] = reduce_sum(%x) {axes=(2,), keepdims=false}
%o : f32[2,3,1] = reshape(%a) {shape=(2,3,1)}""",
    "axes_dropped_after_all": """%a : f32[1,1,4] = reduce_sum(%x) {axes=(0,1), keepdims=true}
%o : f32[4] = reshape(%a) {shape=(4,)}""",
    "gather_of_difference": """%m : f32[2,3,1] = reduce_max(%x) {axes=(2,), keepdims=true}
%d : f32[2,3,4] = sub(%x, %m)
%k : i64[2,3,1] = slice(%i) {starts=(0,0,0), stops=(2,3,1), steps=(1,1,1)}
%o : f32[2,3,1] = take_along(%d, %k) {axis=2}""",
    "scatter_of_one": """%k : i64[2,3,1] = slice(%i) {starts=(0,0,0), stops=(2,3,1), steps=(1,1,1)}
%d : f32[2,3,1] = reduce_max(%x) {axes=(2,), keepdims=true}
%o : f32[2,3,4] = take_along_grad(%d, %k) {axis=2, size=4}""",
    "take_of_positions": """%p : i64[3] = iota() {axis=0, dtype=i64, shape=(3,)}
%o : f32[3,5] = take(%w, %p) {axis=0}""",
    "scatter_to_positions": """%p : i64[3] = iota() {axis=0, dtype=i64, shape=(3,)}
%o : f32[2,7,4] = take_grad(%x, %p) {axis=1, size=7}""",
    "product_of_merged_rows": """%a : f32[6,4] = reshape(%x) {shape=(6,4)}
%p : f32[6,5] = matmul(%a, %w)
%o : f32[2,3,5] = reshape(%p) {shape=(2,3,5)}""",
    "product_of_merged_batches": """%a : f32[2,3,2,2] = reshape(%x) {shape=(2,3,2,2)}
%c : f32[6,2,2] = reshape(%a) {shape=(6,2,2)}
%p : f32[6,2,2] = matmul(%c, %c)
%o : f32[2,3,2,2] = reshape(%p) {shape=(2,3,2,2)}""",
    "product_with_repeated": """%a : f32[2,4,5] = broadcast_to(%w) {shape=(2,4,5)}
%o : f32[2,3,5] = matmul(%x, %a)""",
}

DECLINED: dict[str, str] = {
    "add_of_two": "%o : f32[2,3,4] = add(%x, %y)",
    "sub_of_itself_may_be_nan": "%o : f32[2,3,4] = sub(%x, %x)",
    "div_by_three_is_not_exact": "%o : f32[2,3,4] = div(%x, %three)",
    "not_less_of_floats_may_be_nan": "%a : b1[2,3,4] = lt(%x, %y)\n%o : b1[2,3,4] = logical_not(%a)",
    "cast_that_loses": "%a : i64[2,3,4] = cast(%x) {dtype=i64}\n%o : f32[2,3,4] = cast(%a) {dtype=f32}",
    "reshape_that_mixes": """%t : f32[2,3,4] = tanh(%x)
%a : f32[4,6] = reshape(%t) {shape=(4,6)}
%c : f32[6,4] = permute(%a) {perm=(1,0)}
%o : f32[6,4] = add(%c, %r)""",
    "slice_across_parts": """%a : f32[2,6,4] = concat(%x, %y) {axis=1}
%o : f32[2,4,4] = slice(%a) {starts=(0,1,0), stops=(2,5,4), steps=(1,1,1)}""",
    "pads_that_overlap": """%a : f32[2,4,4] = pad(%x) {low=(0,0,0), high=(0,1,0), value=0.0}
%c : f32[2,4,4] = pad(%y) {low=(0,1,0), high=(0,0,0), value=0.0}
%o : f32[2,4,4] = add(%a, %c)""",
}


def case(body: str) -> Graph:
    """Return the graph of a case; unused lines of the head are left out."""
    names = set(_words(body))
    lines = [line for line in HEAD.strip().splitlines() if line.split()[0] in names]
    return graph("\n".join([*lines, body, 'output prediction "0" %o']))


def _words(body: str) -> list[str]:
    return body.replace("(", " ").replace(")", " ").replace(",", " ").split()
