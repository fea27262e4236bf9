"""Silence around calls of torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGER = logging.getLogger("torch.fx.experimental.symbolic_shapes")


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
