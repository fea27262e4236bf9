"""Calm around calls of torch: no warnings, no collector of garbage."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGER = logging.getLogger("torch.fx.experimental.symbolic_shapes")


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python's collector of cycles off: tracing makes many objects and drops few.

    It takes a sixth of the time of a capture.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's warnings and its dump of a half-traced graph from the terminal."""
    level = _LOGGER.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        _LOGGER.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            _LOGGER.setLevel(level)
