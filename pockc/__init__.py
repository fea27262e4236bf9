"""pockc: compiles the training step of a PyTorch model, ahead of time, for small devices.

Importing this package loads neither PyTorch nor TVM; `compile` does, `load` never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pockc.errors import InternalError, UserError

if TYPE_CHECKING:
    from pockc.driver import compile
    from pockc.runtime import Artifact, load

__all__ = ["Artifact", "InternalError", "UserError", "compile", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what needs a large library, or NumPy, only when it is asked for."""
    if name == "compile":
        from pockc.driver import compile

        return compile
    if name in ("load", "Artifact"):
        from pockc import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'pockc' has no attribute '{name}'")
