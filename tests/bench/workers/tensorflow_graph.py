"""TensorFlow: one `tf.function` for the whole step, images as (N, H, W, C)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tests.bench import layers
from tests.bench.workers.meter import Array, Meter


class Graph:
    """`tests.bench.layers.Layers` by TensorFlow."""

    def __init__(self, tf: Any, variables: dict[str, Any]) -> None:
        """Compute with TensorFlow's module and variables by name."""
        self.tf, self.v = tf, variables
        self.relu, self.relu6, self.tanh = tf.nn.relu, tf.nn.relu6, tf.tanh

    def conv_norm(
        self, name: str, x: Any, *, size: int, stride: int = 1, depthwise: bool = False
    ) -> Any:
        weight, pad = self.v[f"{name}.conv.weight"], size // 2
        convolve = self.tf.nn.depthwise_conv2d if depthwise else self.tf.nn.conv2d
        # PyTorch pads both sides alike, TensorFlow's "SAME" does not where the stride is 2.
        around = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
        y = convolve(x, weight, [1, stride, stride, 1], around if pad else "VALID")
        parts = (
            self.v[f"{name}.norm.{p}"]
            for p in ("weight", "bias", "running_mean", "running_var")
        )
        normalize = self.tf.compat.v1.nn.fused_batch_norm
        return normalize(y, *parts, epsilon=1e-5, is_training=False)[0]

    def linear(self, name: str, x: Any) -> Any:
        return self.tf.matmul(x, self.v[f"{name}.weight"]) + self.v[f"{name}.bias"]

    def embedding(self, name: str, ids: Any) -> Any:
        return self.tf.gather(self.v[f"{name}.weight"], ids)

    def parameter(self, name: str) -> Any:
        return self.v[name]

    def layer_norm(self, name: str, x: Any) -> Any:
        mean, variance = self.tf.nn.moments(x, -1, keepdims=True)
        scale, shift = self.v[f"{name}.weight"], self.v[f"{name}.bias"]
        return self.tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-12)

    def attention(self, q: Any, k: Any, v: Any, heads: int) -> Any:
        tf, (n, t, wide) = self.tf, q.shape
        shape = (n, t, heads, wide // heads)
        q, k, v = (tf.transpose(tf.reshape(x, shape), (0, 2, 1, 3)) for x in (q, k, v))
        scores = tf.matmul(q, k, transpose_b=True) * (wide // heads) ** -0.5
        y = tf.matmul(tf.nn.softmax(scores), v)
        return tf.reshape(tf.transpose(y, (0, 2, 1, 3)), (n, t, wide))

    def gelu(self, x: Any) -> Any:
        return self.tf.nn.gelu(x, approximate=False)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def max_pool(self, x: Any) -> Any:
        # Operands are never negative here, so zeros around them are as good as PyTorch's.
        x = self.tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return self.tf.nn.max_pool2d(x, 3, 2, "VALID")

    def mean_of_pixels(self, x: Any) -> Any:
        return self.tf.reduce_mean(x, (1, 2))

    def first_token(self, x: Any) -> Any:
        return x[:, 0]


def transposed(name: str, value: Array) -> Array:
    """Return a weight of PyTorch in TensorFlow's order."""
    if value.ndim == 4 and value.shape[1] == 1:
        return np.ascontiguousarray(value.transpose(2, 3, 0, 1))
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    if value.ndim == 2 and not name.startswith(("words", "positions")):
        return np.ascontiguousarray(value.T)
    return value


def main() -> None:
    """Build the step and serve it."""
    meter = Meter()
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(meter.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    meter.imported()
    trained = set(meter.trained)
    variables = {
        n: tf.Variable(transposed(n, v), trainable=n in trained) for n, v in meter.weights()
    }
    tuned = [variables[n] for n in meter.trained]
    inputs, labels = meter.batch()
    if inputs.ndim == 4:
        inputs = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    else:
        inputs = inputs.astype(np.int32)
    x, y = tf.constant(inputs), tf.constant(labels.reshape(-1).astype(np.int32))
    rate = meter.learning_rate

    @tf.function(autograph=False)
    def train(x: Any, y: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tuned)
            logits = layers.outputs(Graph(tf, variables), x, meter.workload)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            )
        for variable, gradient in zip(tuned, tape.gradient(loss, tuned), strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                change = tf.IndexedSlices(gradient.values * rate, gradient.indices)
                variable.scatter_sub(change)
            else:
                variable.assign_sub(rate * gradient)
        return loss

    meter.serve(lambda: train(x, y).numpy(), tf.__version__)


if __name__ == "__main__":
    main()
