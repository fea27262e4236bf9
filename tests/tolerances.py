"""THE table: how far results may be apart, by element type and by what was done to them.

A difference passes if it is at most `atol * scale + rtol * |expected|`, where `scale` is the
largest magnitude expected in the tensor: an element near zero that is the sum of large terms is
not held to its own size. A test that needs more gets a row here, with a reason, or is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from pockc.ir import DType


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may be from what is expected; `why` is for the reader."""

    rtol: float
    atol: float
    why: str


TABLE: dict[tuple[DType, str], Tolerance] = {
    (DType.F64, "rewrite"): Tolerance(1e-11, 1e-12, "a pass re-associates a few operations"),
    (DType.F32, "rewrite"): Tolerance(1e-4, 2e-6, "a pass re-associates a few operations"),
    (DType.F64, "eager"): Tolerance(1e-9, 1e-10, "other order of sums than PyTorch, one step"),
    (DType.F32, "eager"): Tolerance(1e-3, 2e-5, "other order of sums than PyTorch, one step"),
    (DType.F64, "kernel"): Tolerance(1e-10, 1e-11, "other order of sums than NumPy"),
    (DType.F32, "kernel"): Tolerance(2e-4, 5e-6, "other order of sums, approximated exp"),
    (DType.F16, "kernel"): Tolerance(1e-2, 2e-3, "ten bits of mantissa"),
    (DType.BF16, "kernel"): Tolerance(5e-2, 1e-2, "seven bits of mantissa"),
    (DType.F64, "training"): Tolerance(1e-8, 1e-9, "ten steps multiply what one step differs"),
    (DType.F32, "training"): Tolerance(5e-3, 2e-4, "ten steps multiply what one step differs"),
}


def tolerance(dtype: DType, kind: str) -> Tolerance:
    """Return the row of an element type; integers and booleans must be equal."""
    if not dtype.is_float:
        return EXACT
    return TABLE[dtype, kind]


EXACT = Tolerance(0.0, 0.0, "nothing was computed in another way")
