"""What kernels usually reach, as shares of what a machine reaches at most.

Fitted to the kernels of other nets than those that predictions are compared on, see
`python -m tests.bench times`: ResNet-18 and 50, DistilBERT, a Llama-like decoder, a small
CNN and MobileNetV2 at 160 x 160, in six schemes each; 2 threads of an AMD EPYC with AVX-512
(573 GFLOP/s of multiply-adds, 48 GB/s), the kernels of 2026-11-24.
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
        far_bytes: What of these is more than the caches hold, besides.
    """

    call_us: float
    flops: float
    other_flops: float
    nbytes: float
    far_bytes: float


USUAL = Rates(1.0, 1.3, 1.5, 0.3, 0.5)
"""Of kinds that are not in the table."""

RATES: dict[str, Rates] = {
    "conv2d 1x1": Rates(0.00, 1.28, 0.00, 0.09, 0.16),
    "conv2d depthwise": Rates(1.10, 1.21, 0.00, 0.11, 0.08),
    "conv2d window": Rates(1.25, 0.35, 0.00, 1.03, 2.59),
    "conv2d_grad_input 1x1": Rates(0.84, 1.38, 0.00, 0.00, 0.23),
    "conv2d_grad_input depthwise": Rates(1.51, 1.18, 2.13, 0.07, 0.11),
    "conv2d_grad_input window": Rates(1.28, 0.37, 0.80, 0.70, 0.70),
    "conv2d_grad_weight 1x1": Rates(1.41, 1.48, 1.43, 0.00, 0.12),
    "conv2d_grad_weight depthwise": Rates(0.64, 1.22, 1.55, 0.51, 0.17),
    "conv2d_grad_weight window": Rates(1.12, 1.12, 1.28, 0.36, 0.51),
    "elementwise": Rates(0.09, 1.20, 1.09, 0.29, 0.00),
    "index": Rates(0.05, 1.20, 2.16, 0.38, 0.55),
    "matmul": Rates(0.30, 1.20, 0.54, 0.16, 0.16),
    "move": Rates(0.51, 1.20, 1.34, 0.29, 0.11),
    "pool": Rates(0.76, 1.20, 0.31, 0.00, 1.18),
    "reduction": Rates(0.21, 1.20, 5.45, 0.19, 0.01),
}
