"""Small training graphs as text, for tests of passes."""

# ruff: noqa: E501  graph text is as long as it is
from __future__ import annotations

from pockc.ir import Graph
from tests.support import graph

# y = tanh(x w1 + b1) w2, loss = sum(y * target), gradients of all three.
MLP = """
%w1 : f32[6,8] = input param "fc1.weight"
%b1 : f32[8] = input param "fc1.bias"
%w2 : f32[8,4] = input param "fc2.weight"
%x : f32[5,6] = input batch "x"
%t : f32[5,4] = input batch "target"
%h : f32[5,8] = matmul(%x, %w1)
%a : f32[5,8] = add(%h, %b1)
%z : f32[5,8] = tanh(%a)
%y : f32[5,4] = matmul(%z, %w2)
%p : f32[5,4] = mul(%y, %t)
%loss : f32[] = reduce_sum(%p) {axes=(0,1), keepdims=false}
%zt : f32[8,5] = permute(%z) {perm=(1,0)}
%g2 : f32[8,4] = matmul(%zt, %t)
%w2t : f32[4,8] = permute(%w2) {perm=(1,0)}
%dz : f32[5,8] = matmul(%t, %w2t)
%zz : f32[5,8] = mul(%z, %z)
%one : f32[] = full() {shape=(), value=1.0, dtype=f32}
%s : f32[5,8] = sub(%one, %zz)
%da : f32[5,8] = mul(%dz, %s)
%gb : f32[8] = reduce_sum(%da) {axes=(0,), keepdims=false}
%xt : f32[6,5] = permute(%x) {perm=(1,0)}
%g1 : f32[6,8] = matmul(%xt, %da)
output loss %loss
output gradient "fc1.weight" %g1
output gradient "fc1.bias" %gb
output gradient "fc2.weight" %g2
"""

# A convolution with frozen batch norm and relu, forward and backward.
CONV = """
%w : f32[8,3,3,3] = input param "conv.weight"
%gamma : f32[8] = input param "bn.weight"
%beta : f32[8] = input param "bn.bias"
%mean : f32[8] = input buffer "bn.running_mean"
%var : f32[8] = input buffer "bn.running_var"
%v : f32[4,8,1,1] = input param "last.weight"
%x : f32[2,3,6,6] = input batch "x"
%y : f32[2,8,6,6] = conv2d(%x, %w) {stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%m4 : f32[1,8,1,1] = reshape(%mean) {shape=(1,8,1,1)}
%c : f32[2,8,6,6] = sub(%y, %m4)
%eps : f32[] = full() {shape=(), value=1e-05, dtype=f32}
%ve : f32[8] = add(%var, %eps)
%r : f32[8] = rsqrt(%ve)
%r4 : f32[1,8,1,1] = reshape(%r) {shape=(1,8,1,1)}
%n : f32[2,8,6,6] = mul(%c, %r4)
%g4 : f32[1,8,1,1] = reshape(%gamma) {shape=(1,8,1,1)}
%s : f32[2,8,6,6] = mul(%n, %g4)
%b4 : f32[1,8,1,1] = reshape(%beta) {shape=(1,8,1,1)}
%a : f32[2,8,6,6] = add(%s, %b4)
%zero : f32[] = full() {shape=(), value=0.0, dtype=f32}
%h : f32[2,8,6,6] = maximum(%a, %zero)
%o : f32[2,4,6,6] = conv2d(%h, %v) {stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%loss : f32[] = reduce_sum(%o) {axes=(0,1,2,3), keepdims=false}
%do : f32[2,4,6,6] = full() {shape=(2,4,6,6), value=1.0, dtype=f32}
%gv : f32[4,8,1,1] = conv2d_grad_weight(%h, %do) {weight_shape=(4,8,1,1), stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%dh : f32[2,8,6,6] = conv2d_grad_input(%do, %v) {input_shape=(2,8,6,6), stride=(1,1), padding=(0,0), dilation=(1,1), groups=1}
%on : b1[2,8,6,6] = gt(%a, %zero)
%da : f32[2,8,6,6] = where(%on, %dh, %zero)
%gb : f32[8] = reduce_sum(%da) {axes=(0,2,3), keepdims=false}
%dn : f32[2,8,6,6] = mul(%da, %g4)
%dy : f32[2,8,6,6] = mul(%dn, %r4)
%gw : f32[8,3,3,3] = conv2d_grad_weight(%x, %dy) {weight_shape=(8,3,3,3), stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%dx : f32[2,3,6,6] = conv2d_grad_input(%dy, %w) {input_shape=(2,3,6,6), stride=(1,1), padding=(1,1), dilation=(1,1), groups=1}
%dxs : f32[3] = reduce_sum(%dx) {axes=(0,2,3), keepdims=false}
output loss %loss
output gradient "conv.weight" %gw
output gradient "bn.bias" %gb
output gradient "last.weight" %gv
output metric "dx" %dxs
"""

# Layer norm and softmax of rows, forward and backward.
ROWS = """
%g : f32[16] = input param "norm.weight"
%x : f32[3,16] = input batch "x"
%d : f32[3,16] = input batch "d"
%sixteenth : f32[] = full() {shape=(), value=0.0625, dtype=f32}
%eps : f32[] = full() {shape=(), value=1e-05, dtype=f32}
%e : f32[3,16] = exp(%x)
%s0 : f32[3,1] = reduce_sum(%e) {axes=(1,), keepdims=true}
%p : f32[3,16] = div(%e, %s0)
%s1 : f32[3,1] = reduce_sum(%p) {axes=(1,), keepdims=true}
%mean : f32[3,1] = mul(%s1, %sixteenth)
%c : f32[3,16] = sub(%p, %mean)
%q : f32[3,16] = mul(%c, %c)
%s2 : f32[3,1] = reduce_sum(%q) {axes=(1,), keepdims=true}
%var : f32[3,1] = mul(%s2, %sixteenth)
%ve : f32[3,1] = add(%var, %eps)
%r : f32[3,1] = rsqrt(%ve)
%n : f32[3,16] = mul(%c, %r)
%y : f32[3,16] = mul(%n, %g)
%dn : f32[3,16] = mul(%d, %n)
%gg : f32[16] = reduce_sum(%dn) {axes=(0,), keepdims=false}
output prediction "0" %y
output gradient "norm.weight" %gg
"""

SGD = """graph sgd {{
  %p : f32[{shape}] = input param "p"
  %grad : f32[{shape}] = input batch "grad"
  %lr : f32[] = input scalar "lr"
  %step : f32[] = input scalar "step"
  %m : f32[{shape}] = input opt_state "momentum" "p"
  %beta : f32[] = full() {{shape=(), value=0.9, dtype=f32}}
  %old : f32[{shape}] = mul(%m, %beta)
  %new : f32[{shape}] = add(%old, %grad)
  %power : f32[] = pow(%beta, %step)
  %one : f32[] = full() {{shape=(), value=1.0, dtype=f32}}
  %correction : f32[] = sub(%one, %power)
  %hat : f32[{shape}] = div(%new, %correction)
  %change : f32[{shape}] = mul(%hat, %lr)
  %p2 : f32[{shape}] = sub(%p, %change)
  output update "p" %p2
  output state_update "momentum" "p" %new
}}"""


def sgd(*shape: int) -> Graph:
    """Return a recipe: momentum with a bias correction."""
    return graph(SGD.format(shape=",".join(map(str, shape))))
