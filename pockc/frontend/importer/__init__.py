"""From ATen operations to our ops. One file per family; `base` holds the table, `run` the loop.

An operation is supported if it has a handler here or an op names it in `OpDef.aten`; there is
no other list. What has neither is reported before anything is imported, all of it at once.
"""

from pockc.frontend.importer import (
    activation,
    convolution,
    creation,
    elementwise,
    index,
    loss,
    matmul,
    normalization,
    pool,
    random,
    reduction,
    shape,
)
from pockc.frontend.importer.base import supported
from pockc.frontend.importer.run import import_graph

__all__ = [
    "activation",
    "convolution",
    "creation",
    "elementwise",
    "import_graph",
    "index",
    "loss",
    "matmul",
    "normalization",
    "pool",
    "random",
    "reduction",
    "shape",
    "supported",
]
