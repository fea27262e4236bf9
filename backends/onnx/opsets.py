"""Which version of ONNX's operators to write."""

from __future__ import annotations

from pockc.errors import Problem, UserError

LEAST = 18
"""Reductions take their axes as an operand, and bits can be combined, from here on."""

NEWEST = 21
"""What is written by default, if the installed runtime reads it. Newer ones add nothing that
is used here, and fewer runtimes read them."""

# The newest opset that a release of ONNX Runtime reads, as its compatibility table says.
_RUNTIMES = {(1, 14): 18, (1, 15): 19, (1, 16): 19, (1, 17): 20, (1, 18): 21}


def choose(asked: int | None) -> int:
    """Return the opset to write.

    Raises:
        UserError: [opset] It is older than the operators that are needed, or newer than the
            installed package onnx knows.
    """
    import onnx

    newest = int(onnx.defs.onnx_opset_version())
    if asked is None:
        return min(NEWEST, newest, _of_runtime())
    if LEAST <= asked <= newest:
        return asked
    what = f"opset {asked} cannot be written"
    raise UserError(Problem("opset", what, fix=f"choose one from {LEAST} to {newest}"))


def _of_runtime() -> int:
    """Return what the installed ONNX Runtime reads; if none is, what most do."""
    try:
        import onnxruntime
    except ImportError:
        return NEWEST
    major, minor = (int(n) for n in onnxruntime.__version__.split(".")[:2])
    return max((o for v, o in _RUNTIMES.items() if v <= (major, minor)), default=LEAST)
