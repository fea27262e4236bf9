"""The order of rows in an epoch, without a table of it; `device/order.c` has the same.

A permutation of the rows by a Feistel network (Luby & Rackoff, How to Construct Pseudorandom
Permutations from Pseudorandom Functions, SIAM J. Comput. 1988) over the least power of four
that is not below their number; a position whose image is no row is taken through it again until
it is one (Black & Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

from __future__ import annotations

import numpy as np

from pockc.runtime.dtypes import Array

_ROUNDS = 6
_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def rows_at(rows: int, seed: int, epoch: int, positions: Array) -> Array:
    """Return which rows come at the given positions (from 0) of an epoch (from 0).

    Args:
        rows: How many there are; every one comes once in an epoch.
        seed: Another one gives another order.
        epoch: Each has its own order.
        positions: Integers below `rows`, in any shape.
    """
    half_bits = max((max(rows, 1) - 1).bit_length() + 1, 2) // 2
    keys = _keys(seed, epoch)
    at = np.asarray(positions).astype(np.uint64)
    pending = np.ones(at.shape, bool)
    while pending.any():
        at[pending] = _network(at[pending], keys, half_bits)
        pending = at >= np.uint64(rows)
    return at.astype(np.int64)


def _keys(seed: int, epoch: int) -> list[int]:
    base = _mix((_mix((seed + _GAMMA) & _MASK) + (epoch + 1) * _GAMMA) & _MASK)
    return [_mix((base + (i + 1) * _GAMMA) & _MASK) for i in range(_ROUNDS)]


def _mix(x: int) -> int:
    """Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014: finaliser."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _mix_all(x: Array) -> Array:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def _network(at: Array, keys: list[int], half_bits: int) -> Array:
    half, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = at >> half, at & mask
    for key in keys:
        left, right = right, left ^ (_mix_all(right + np.uint64(key)) & mask)
    joined: Array = left << half | right
    return joined
