"""The lowerings, a file per family; `LOWERINGS` has all of them."""

from pockc.backends.onnx.lowerings import (  # noqa: F401  each fills the table
    contraction,
    convolution,
    elementwise,
    index,
    move,
    pool,
    random,
    reduce,
)
from pockc.backends.onnx.lowerings.table import LOWERINGS

__all__ = ["LOWERINGS"]
