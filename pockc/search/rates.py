from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    call_us: float
    flops: float
    other_flops: float
    nbytes: float


USUAL = Rates(1.0, 1.5, 3.0, 1.0)
RATES: dict[str, Rates] = {}
