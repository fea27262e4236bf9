"""What kernels usually reach, as shares of what a machine reaches at most.

Fitted to the kernels of other nets than those that predictions are compared on, see
`python -m tests.bench times --rates`: ResNet-18 and 50, DistilBERT, a Llama-like decoder, a
small CNN and MobileNetV2 at 160 x 160, in six schemes each by SGD; 2 threads of an AMD EPYC with
AVX-512 (573 GFLOP/s of multiply-adds, 48 GB/s), the kernels of 2026-11-24.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """What a kind of kernels takes of the time that the machine's peaks would.

    Attributes:
        call_us: A call without work, in microseconds.
        flops: Products: 1 is the peak of multiply-adds, 2 half of it.
        other_flops: Other arithmetic, likewise.
        nbytes: Operands and results: 1 is the rate of the memory, less a cache's.
        far_bytes: What of these no cache holds, besides.
    """

    call_us: float
    flops: float
    other_flops: float
    nbytes: float
    far_bytes: float


USUAL = Rates(1.0, 1.2, 1.5, 0.2, 0.6)
"""Of kinds that are not in the table."""

RATES: dict[str, Rates] = {
    "conv2d 1x1": Rates(0.00, 1.28, 0.00, 0.11, 0.53),
    "conv2d depthwise": Rates(0.92, 1.21, 0.00, 0.13, 0.48),
    "conv2d window": Rates(1.12, 0.41, 0.00, 1.06, 2.96),
    "conv2d_grad_input 1x1": Rates(0.42, 1.38, 0.00, 0.05, 0.38),
    "conv2d_grad_input depthwise": Rates(1.16, 1.15, 1.86, 0.11, 0.25),
    "conv2d_grad_input window": Rates(1.27, 0.41, 0.85, 0.79, 0.08),
    "conv2d_grad_weight 1x1": Rates(1.49, 1.48, 1.05, 0.01, 0.42),
    "conv2d_grad_weight depthwise": Rates(0.39, 1.24, 1.55, 0.54, 1.00),
    "conv2d_grad_weight window": Rates(1.11, 1.15, 1.36, 0.42, 0.31),
    "elementwise": Rates(0.09, 1.20, 0.31, 0.30, 0.35),
    "index": Rates(0.00, 1.20, 2.62, 0.45, 0.61),
    "matmul": Rates(0.29, 1.17, 0.57, 0.21, 0.65),
    "move": Rates(0.47, 1.20, 0.66, 0.32, 0.11),
    "pool": Rates(0.98, 1.20, 1.39, 0.32, 0.88),
    "reduction": Rates(0.22, 1.20, 5.26, 0.19, 0.10),
}
