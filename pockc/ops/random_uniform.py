"""Random numbers in [0, 1), a pure function of seed, salt and index.

Each element hashes its row-major index with two keys made of the 64-bit seed and the salt, so
that a step can be repeated, and forward and backward can draw the same numbers again instead
of keeping them. The hash is lowbias32 (Wellons 2018, "Prospecting for Hash Functions").
"""

from __future__ import annotations

import numpy as np

from pockc.ir.attrs import Attrs
from pockc.ir.types import TensorType, f32, i64
from pockc.ops.base import Arrays, OpDef, OpKind, Types, arity, expect, sample, volume


def mix(x: np.ndarray) -> np.ndarray:
    """Return lowbias32 of unsigned 32-bit numbers."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return np.asarray(x ^ (x >> np.uint32(16)))


def _infer(types: Types, attrs: Attrs) -> TensorType:
    arity(types, 1)
    expect(types[0] == i64(), f"the seed must be i64[], found {types[0]}")
    expect(0 <= attrs["salt"] < 2**32, "salt must be a 32-bit number")
    return f32(*attrs["shape"])


def _reference(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    # key1 = mix(low ^ mix(high ^ salt)), key2 = mix(key1 + 0x9E3779B9);
    # bits = mix(mix(index + key1) ^ key2); the result is its upper 24 bits over 2^24.
    seed, salt = int(arrays[0]) % 2**64, np.array(attrs["salt"], np.uint32)
    low, high = np.array(seed % 2**32, np.uint32), np.array(seed >> 32, np.uint32)
    index = np.arange(volume(attrs["shape"]), dtype=np.uint32)
    with np.errstate(over="ignore"):
        key1 = mix(low ^ mix(high ^ salt))
        key2 = mix(key1 + np.uint32(0x9E3779B9))
        bits = mix(mix(index + key1) ^ key2)
    unit = (bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return np.reshape(unit, attrs["shape"])


OP = OpDef(
    "random_uniform",
    OpKind.GENERATOR,
    _infer,
    _reference,
    flops=lambda types, result, attrs: 16 * result.size,
    samples=(
        sample(i64(), shape=(7,), salt=0, bound=2**40),
        sample(i64(), shape=(3, 5), salt=9, bound=2**40),
    ),
    cheap=True,
)
